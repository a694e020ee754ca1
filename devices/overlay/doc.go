// Package overlay owns how the nodes of a home share what they know: the member port
// with its flows (dialling, verdict, collisions, liveness), signed records, and the
// exchange that brings roster and records of two nodes together.
//
// Roster = who may be here; flow table = who is here. Nothing that a node says about a
// third one changes anything, so there is nothing to forge. A Mesh is driven by Run;
// its methods may be called from any goroutine. The package refuses every record that
// is too large, badly signed, or written about somebody else.
package overlay
