// Package devices owns the nouns of a home (node, device, room, person, AOR, contact)
// and the directory: a pure fold (Fold) of the roster, the nodes' own records, what is
// in sight and what this node itself can reach, with one writer (Directory.Run) and one
// change feed. It also owns the crash-safe store of a node.
//
// Snapshots are immutable and may be read from any goroutine; everything else says who
// may call it. The package refuses hearsay: nothing that another node says about a third
// one changes the directory, and a foreign thing never becomes a member by itself.
package devices
