// Package overlay owns how the nodes of a home share what they know: the member port
// with its flows (dialling, verdict, collisions, liveness), signed records, and the
// exchange that brings roster and records of two nodes together.
//
// Records have three shapes: a register (Write: the last one wins), a log for each writer
// (Append: the last 500 entries, in order and without gaps), and a blob (PutBlob: bytes
// named by their hash, held by two nodes while a record refers to them). mayWrite says
// who may write what.
//
// Roster = who may be here; flow table = who is here. Nothing that a node says about a
// third one changes anything, so there is nothing to forge. A Mesh is driven by Run;
// its methods may be called from any goroutine. The package refuses every record that
// is too large, badly signed, or written about somebody else; a member that sends too
// much is read slowly (limits.go), never believed and never let near others' flows.
package overlay
