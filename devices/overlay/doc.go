// Package overlay owns how the nodes of a home come together: the member port with its
// flows (dialling, verdict, collisions, liveness), and the exchange over them that makes
// roster, records and blobs of two nodes one. What a record is, who may write it and how
// it is kept is devices/records'.
//
// Roster = who may be here; flow table = who is here. Nothing that a node says about a
// third one changes anything, so there is nothing to forge. A Mesh is driven by Run;
// its methods may be called from any goroutine. A member that sends too much is read
// slowly (limits.go), never believed and never let near others' flows.
package overlay
