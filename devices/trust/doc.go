// Package trust owns who belongs to a home: the roster log (hash-linked edits, each
// signed by one owner), its pure fold, the recovery code and its root key, and the TLS
// configuration by which members recognise each other.
//
// A Log may be used from any goroutine; rosters are immutable. The package refuses every
// edit whose signature, size, home or form is wrong, and knows no clock: no date decides
// who belongs.
package trust
