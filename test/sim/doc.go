// Package sim runs whole homes in one process: the real mesh, roster log and store of
// several nodes, on virtual time (testing/synctest) and a LAN in memory, while a program
// that follows from a seed publishes, admits, removes, renames, proposes, recovers, makes
// checkpoints, moves, cuts, kills and forges. After every step it compares what each node
// believes with a small model that knows only what was done, and its home with what an
// oracle says of the same edits, which was written from docs/decisions.md.
//
// A day passes by a jump of all clocks; what needs a node to have been heard since (its
// clock, for one) is asked only of those who were.
//
// A seed fixes the program and the odds of the network, not the order in which the
// goroutines of a moment run: rerun a failed one a few times (HALLWAY_SIM_SEED=n).
package sim
