//go:build hallwaytest

package devices

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCrashPointsKill re-runs itself as a child that kills itself at a named point.
func TestCrashPointsKill(t *testing.T) {
	if os.Getenv("HALLWAY_CRASH_CHILD") != "" {
		s := openStore(t, "data", StoreOptions{}) // in the folder that the parent chose
		for range 3 {
			if err := s.Update("roster.append", func(tx Tx) error { return tx.Put(BucketRoster, "n", append(tx.Get(BucketRoster, "n"), 1)) }); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	for at, want := range map[string]int{"roster.append.before:1": 0, "roster.append.after:1": 1, "roster.append.before:3": 2, "roster.append.after:9": 3} {
		dir := t.TempDir()
		points := filepath.Join(dir, "points")
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashPointsKill$")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HALLWAY_CRASH_CHILD=1", "HALLWAY_CRASH_AT="+at, "HALLWAY_CRASH_LOG="+points)
		err := cmd.Run()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != (want < 3) {
			t.Errorf("%s: %v", at, err)
		}
		s := openStore(t, filepath.Join(dir, "data"), StoreOptions{})
		if err := s.View(func(tx Tx) error {
			if got := len(tx.Get(BucketRoster, "n")); got != want {
				t.Errorf("%s: %d writes are on disk, want %d", at, got, want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		_ = s.Close()
		point, _, _ := strings.Cut(at, ":")
		if b, err := os.ReadFile(points); err != nil || !strings.Contains(string(b), "store.create.after\n") || !strings.Contains(string(b), point+"\n") {
			t.Errorf("%s: the list of points reads %q, %v", at, b, err)
		}
	}
}
