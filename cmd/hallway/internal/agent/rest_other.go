//go:build !linux

package agent

import "runtime/debug"

// giveBack gives memory back to the system.
func giveBack() { debug.FreeOSMemory() }
