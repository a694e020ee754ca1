// Package trust owns who belongs to a home: the roster log (hash-linked edits, each
// signed by one owner), its pure fold, the recovery code and its root key, and the TLS
// configuration by which members recognise each other.
//
// A Log may be used from any goroutine; rosters are immutable. The package refuses every
// edit whose signature, size, home or form is wrong, and knows no clock: no date decides
// who belongs.
//
// Owners have generations: the first owner, and whom the recovery code admits, are 0; an
// owner whom generation g admits is g+1. An owner is removed only by a lower generation
// or by the recovery code, and of a removed owner only those edits count that the remover
// knew. See settle for why.
package trust
