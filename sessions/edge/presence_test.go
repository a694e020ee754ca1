package edge

import (
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// A quiet phone does not ring; its person's other phones do, and without any the caller is told why.
func TestQuietPhone(t *testing.T) {
	n := newNode(t)
	maria, sam, other := n.phone("maria").open().register(), n.phone("sam").open(), n.phone("sam")
	sam.quiet = true
	sam.register()
	maria.request("INVITE", "sam", "q1", "q1", "m", "", "", maria.sdp())
	res, ok := maria.read().(*sip.Response)
	if !ok || res.StatusCode != 480 || res.Reason != "Do Not Disturb" {
		t.Fatalf("the caller hears %v", res)
	}
	other.open().register()
	maria.request("INVITE", "sam", "q2", "q2", "m", "", "", maria.sdp())
	other.respond(other.asked(sip.INVITE), 486, "o")
	other.asked(sip.ACK)
	if s := maria.status(); s != 486 {
		t.Errorf("the other phone is busy, the caller hears %d", s)
	}
	sam.quiet = false // it registers anew with another wish
	sam.register()
	n.waitFor(t, "the wish is shared", func() bool { return !n.bindings[sam.id].Quiet })
	maria.request("INVITE", "sam", "q3", "q3", "m", "", "", maria.sdp())
	sam.respond(sam.asked(sip.INVITE), 603, "s")
	other.respond(other.asked(sip.INVITE), 603, "o")
	if s := maria.status(); s != 603 {
		t.Errorf("both declined, the caller hears %d", s)
	}
}

// The home is told which phones are in a call, with one record for its begin and one for its end.
func TestBusyPhone(t *testing.T) {
	n := newNode(t)
	maria, sam := n.phone("maria").open().register(), n.phone("sam").open().register()
	n.mu.Lock()
	before := n.written
	n.mu.Unlock()
	maria.request("INVITE", "sam", "b1", "b1", "m", "", "", maria.sdp())
	sam.respond(sam.asked(sip.INVITE), 200, "s")
	if s := maria.status(); s != 200 {
		t.Fatalf("the caller hears %d", s)
	}
	n.waitFor(t, "both are busy", func() bool { return n.bindings[maria.id].Busy && n.bindings[sam.id].Busy })
	maria.register() // a refresh changes nothing
	maria.request("BYE", "sam", "b2", "b1", "m", "s", "", "")
	sam.respond(sam.asked(sip.BYE), 200, "s")
	if s := maria.status(); s != 200 {
		t.Fatalf("the end: %d", s)
	}
	n.waitFor(t, "both are free", func() bool { return !n.bindings[maria.id].Busy && !n.bindings[sam.id].Busy })
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.written != before+4 {
		t.Errorf("a call cost %d records, not 4", n.written-before)
	}
}

// waitFor asks under the lock until it holds.
func (n *node) waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n.mu.Lock()
		ok := f()
		n.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not within 5 s: " + what)
		}
	}
}
