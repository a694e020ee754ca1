// Package records owns what the nodes of a home say and how each node keeps it: signed
// records, who may write which, and the comparison that says what one node lacks.
//
// Records have three shapes. A register (Table.Write) names a subject and a kind, and of
// one writer the last statement counts. A log (Table.Append) is one for each writer: its
// last 500 entries, in order and without gaps. A blob (Blobs) is bytes named by their
// hash, and lives while a record refers to it. mayWrite says who may write what.
//
// Two tables come together in three bounded steps, whatever carries them: Sums, State of
// the writers who differ, Lacking. Records come in by Take, from whomever: who signed
// counts, not who sent. No clock decides order; (epoch, sequence) of the writer does.
//
// The package starts no goroutine and knows no network. It refuses every record that is
// too large, badly signed, or written about somebody else, and bounds what one writer
// may keep and how often it may change it.
package records
