// Package trust owns who belongs to a home: the roster log (hash-linked edits, each
// signed by one owner), its pure fold, the recovery code and its root key, and the TLS
// configuration by which members recognise each other.
//
// A Log may be used from any goroutine; rosters are immutable. The package refuses every
// edit whose signature, size, home or form is wrong, and no clock orders or
// voids an edit: home time only delays when a lone owner's removal takes force here.
//
// Owners form a tree by who made whom an owner, with the recovery code at its root. One
// owner removes at once only those it made itself; two who are not of one branch remove
// others; one alone removes any other after 24 hours. Of an owner removed only those edits count
// that the removers knew. See settle for why.
//
// A checkpoint by the recovery code stands in the place of all edits before it, see base.
package trust
