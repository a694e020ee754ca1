// Package sim runs whole homes in one process: the real mesh, roster log and store of
// several nodes, on virtual time (testing/synctest) and a LAN in memory, while a program
// that follows from a seed publishes, admits, removes, renames, cuts, kills and forges.
// After every step it compares what each node believes with a small model that knows
// only what was done.
//
// A seed fixes the program and the odds of the network, not the order in which the
// goroutines of a moment run: rerun a failed one a few times (HALLWAY_SIM_SEED=n).
package sim
