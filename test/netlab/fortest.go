package netlab

import (
	"errors"
	"os"
)

// TB is what a test gives: testing.T and testing.B satisfy it, and what ships does not
// carry package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Skip(args ...any)
	Fatal(args ...any)
}

// Peers says whether every peer must be there (REQUIRE_PEERS=1, as in CI).
func Peers() bool { return os.Getenv("REQUIRE_PEERS") == "1" }

// Missing ends a test that needs what this machine lacks: visibly skipped, or failed
// where every peer must be there. what is one sentence.
func Missing(t TB, what string) {
	t.Helper()
	if Peers() {
		t.Fatal("missing, and REQUIRE_PEERS=1: " + what)
	}
	t.Skip("SKIPPED: " + what)
}

// For makes a network that ends with the test.
func For(t TB) *Lab {
	t.Helper()
	l, err := New()
	if errors.Is(err, ErrUnsupported) {
		Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return l
}

// MustHost is Host for tests.
func (l *Lab) MustHost(t TB, name string) *Host {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// MustHostOn is HostOn for tests.
func (l *Lab) MustHostOn(t TB, s *Segment, name string, f Families) *Host {
	t.Helper()
	h, err := l.HostOn(s, name, f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
