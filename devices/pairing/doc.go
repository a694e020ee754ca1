// Package pairing owns how a new device proves that a person wants it in the home: codes,
// join tokens, SPAKE2+ (RFC 9383) as a state machine of bytes in and bytes out, attempt
// limits that survive restarts, and the exchange that follows the proof.
//
// A Window may be used from any goroutine; Prover, Verifier and Link belong to the
// goroutine that runs their exchange. The package refuses relayed exchanges (it binds to
// the TLS channel), look-alikes (it binds to both keys) and guessing.
package pairing
