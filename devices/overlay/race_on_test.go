//go:build race

package overlay

// slowdown stretches ceilings: the race detector costs several times the work.
const slowdown = 5
