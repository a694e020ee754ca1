package overlay

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Both clocks tell of a sleep, and a clock that is set back tells of none.
func TestSleepIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sleep
		if s.slept(time.Now()) {
			t.Error("before the first beat nobody has slept")
		}
		s.beat(time.Now())
		time.Sleep(silentAfter)
		if s.slept(time.Now()) {
			t.Error("a late beat is no sleep")
		}
		time.Sleep(time.Millisecond)
		if !s.slept(time.Now()) {
			t.Error("a stopped process is not noticed")
		}
		s.beat(time.Now())
		if !s.slept(time.Now().Round(0).Add(time.Hour)) {
			t.Error("a suspended machine, whose monotonic clock stood still, is not noticed")
		}
		if s.slept(time.Now().Round(0).Add(-time.Hour)) {
			t.Error("a clock that was set back is taken for a sleep")
		}
	})
}

// A node that slept passes on nothing that waited in its flows, ends them all, and shuts
// its gate until rosters were compared again.
func TestSleeperServesNobodyBeforeItCompared(t *testing.T) {
	n := home(t, 2)
	meet(t, n...)
	eventually(t, 3*time.Second, "the gates open", func() bool { return isOpen(n[0]) && isOpen(n[1]) })
	old := n[1].allFlows()
	passed := make(chan error, 1)
	here, there := net.Pipe()
	c := &sipConn{Conn: here, closed: make(chan struct{}), fresh: func() error { return n[1].fresh(old[0]) }}
	go func() {
		_, err := c.Read(make([]byte, 8))
		passed <- err
	}()
	open := n[1].Synced()
	n[1].sleep.beat(time.Now().Add(-time.Hour)) // what a stopped process looks like to itself
	if _, err := there.Write([]byte("OPTIONS")); err != nil {
		t.Fatal(err)
	}
	if err := <-passed; err == nil {
		t.Error("what waited in a flow while the node slept was passed on")
	}
	if n[1].Synced() == open {
		t.Error("the gate stayed open")
	}
	for _, f := range old {
		if f.ctx.Err() == nil {
			t.Error("a flow outlived the sleep")
		}
	}
	eventually(t, 5*time.Second, "they meet again and the gate opens", func() bool { return n[1].reaches(n[0]) && isOpen(n[1]) })
	_ = here.Close()
	_ = there.Close()
}
