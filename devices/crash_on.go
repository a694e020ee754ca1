//go:build hallwaytest

package devices

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// crashHook makes a test build kill itself (SIGKILL) at a named write point:
// HALLWAY_CRASH_AT=roster.append.before:2 means its second passing of that point.
// HALLWAY_CRASH_LOG names a file to which every passed point is written.
func crashHook() func(string) {
	want, nth, _ := strings.Cut(os.Getenv("HALLWAY_CRASH_AT"), ":")
	left, err := strconv.Atoi(nth)
	if err != nil {
		left = 1
	}
	logFile := os.Getenv("HALLWAY_CRASH_LOG")
	var mu sync.Mutex
	return func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if logFile != "" {
			if f, err := os.OpenFile(logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil { //nolint:gosec // a test build, run by the test that names the file
				_, _ = f.WriteString(point + "\n")
				_ = f.Close()
			}
		}
		if point != want {
			return
		}
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way: nothing after this point may run
		}
	}
}
