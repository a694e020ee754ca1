package edge

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

func takenBySam(n *node) string {
	return `SIP;cause=200;text="Call completed elsewhere";by="sip:sam@` + n.home.Domain() + `"`
}

// The first answer is passed on; who rang in vain hears why, and who answers too late is
// confirmed and ended.
func TestFirstAnswerWins(t *testing.T) {
	n := newNode(t)
	maria := n.phone("maria").open().register()
	one, two := n.phone("sam").open().register(), n.phone("sam").open().register()
	call, tag := token(), token()
	maria.request("INVITE", "sam", "b1", call, tag, "", "", maria.sdp())
	a, b := one.asked("INVITE"), two.asked("INVITE")
	one.respond(a, 180, "one")
	two.respond(b, 180, "two")
	if s := maria.status(); s != 180 {
		t.Fatalf("the caller hears %d", s)
	}
	one.respond(a, 200, "one")
	if s := maria.status(); s != 200 {
		t.Fatalf("the caller hears %d", s)
	}
	winner, loser, won := one, two, "one"
	cancel := two.asked("CANCEL")
	if h := cancel.GetHeader("Reason"); h == nil || h.Value() != takenBySam(n) {
		t.Errorf("the loser hears %v", cancel)
	}
	two.respond(cancel, 200, "two")
	two.respond(b, 200, "two") // it was answered in the same moment
	two.asked("ACK")
	bye := loser.asked("BYE")
	if h := bye.GetHeader("Reason"); h == nil || h.Value() != takenBySam(n) {
		t.Errorf("the loser hears %v", bye)
	}
	loser.respond(bye, 200, "two")
	maria.seq--
	maria.request("ACK", "sam", "b2", call, tag, won, "", "")
	winner.asked("ACK")

	// Inside the call: what one says reaches the other, and nobody else can end it.
	maria.seq++
	maria.request("INFO", "sam", "b3", call, tag, won, "", "")
	winner.respond(winner.asked("INFO"), 200, won)
	if s := maria.status(); s != 200 {
		t.Errorf("INFO: %d", s)
	}
	thief := n.phone("maria").open().register()
	thief.request("BYE", "sam", "b4", call, tag, won, "", "")
	if s := thief.status(); s != 481 {
		t.Errorf("another page's BYE: %d", s)
	}
	maria.seq += 5
	maria.request("BYE", "sam", "b5", call, tag, won, "", "")
	winner.respond(winner.asked("BYE"), 200, won)
	if s := maria.status(); s != 200 {
		t.Errorf("BYE: %d", s)
	}
	if len(n.edge.all()) != 0 {
		t.Error("a call that ended is remembered")
	}
}

// A caller that gives up, and one whose connection breaks, stop the ringing.
func TestRingingEndsWithTheCaller(t *testing.T) {
	n := newNode(t)
	maria, sam := n.phone("maria").open().register(), n.phone("sam").open().register()
	call, tag := token(), token()
	maria.request("INVITE", "sam", "b1", call, tag, "", "", maria.sdp())
	in := sam.asked("INVITE")
	sam.respond(in, 180, "s")
	maria.status()
	maria.seq--
	maria.request("CANCEL", "sam", "b1", call, tag, "", "", "")
	sam.respond(sam.asked("CANCEL"), 200, "s")
	sam.respond(in, 487, "s")
	if a, b := maria.status(), maria.status(); a+b != 687 {
		t.Errorf("the caller hears %d and %d", a, b)
	}
	sam.asked("ACK")
	maria.seq++
	maria.request("INVITE", "sam", "b2", token(), token(), "", "", maria.sdp())
	in = sam.asked("INVITE")
	sam.respond(in, 180, "s")
	maria.status()
	_ = maria.ws.CloseNow()
	sam.asked("CANCEL")
}

// A page that is gone for ten seconds ends its calls; one that comes back keeps them.
func TestGonePageEndsItsCalls(t *testing.T) {
	n := newNode(t)
	maria, sam := n.phone("maria").open().register(), n.phone("sam").open().register()
	call, tag := token(), token()
	maria.request("INVITE", "sam", "b1", call, tag, "", "", maria.sdp())
	sam.respond(sam.asked("INVITE"), 200, "s")
	maria.status()
	gone := func() bool {
		n.edge.mu.Lock()
		defer n.edge.mu.Unlock()
		return len(n.edge.flows) == 1
	}
	_ = maria.ws.CloseNow()
	eventually(t, "the flow is gone", gone)
	n.edge.Review(time.Now())
	n.edge.Review(time.Now().Add(9 * time.Second))
	maria.open().register()
	n.edge.Review(time.Now().Add(11 * time.Second))
	if len(n.edge.all()) != 1 {
		t.Fatal("a page that came back lost its call")
	}
	maria.request("INFO", "sam", "b2", call, tag, "s", "", "")
	sam.respond(sam.asked("INFO"), 200, "s")
	if s := maria.status(); s != 200 {
		t.Errorf("INFO over the new connection: %d", s)
	}
	_ = maria.ws.CloseNow()
	eventually(t, "the flow is gone again", gone)
	now := time.Now()
	n.edge.Review(now)
	n.edge.Review(now.Add(11 * time.Second))
	bye := sam.asked("BYE")
	if f, _ := bye.From().Params.Get("tag"); f != tag || bye.GetHeader("Reason") == nil {
		t.Errorf("the other side hears %v", bye)
	}
	sam.respond(bye, 200, "s")
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.bindings[maria.id]; ok {
		t.Error("the home believes that a phone is here which is gone")
	}
}

// A phone that no longer belongs loses its calls at once, is told so, and loses its flow.
func TestRemovedPhoneLosesAll(t *testing.T) {
	n := newNode(t)
	maria, sam := n.phone("maria").open().register(), n.phone("sam").open().register()
	maria.request("INVITE", "sam", "b1", token(), token(), "", "", maria.sdp())
	sam.respond(sam.asked("INVITE"), 200, "s")
	maria.status()
	n.mu.Lock()
	r := *n.roster
	r.Persons = map[string]devices.Person{"sam": r.Persons["sam"]}
	n.roster = &r
	n.fold()
	n.mu.Unlock()
	n.edge.Review(time.Now())
	sam.respond(sam.asked("BYE"), 200, "s")
	maria.respond(maria.asked("BYE"), 200, "m") // else its page would keep the camera on
	maria.request("INVITE", "sam", "b2", token(), token(), "", "", maria.sdp())
	if status := maria.status(); status != 403 {
		t.Errorf("a removed phone calls: %d", status)
	}
	n.edge.Review(time.Now())
	eventually(t, "its flow is closed", func() bool {
		n.edge.mu.Lock()
		defer n.edge.mu.Unlock()
		return len(n.edge.flows) == 1
	})
	if res, err := maria.dial(nil); err == nil || res.StatusCode != 403 {
		t.Errorf("it may come back: %v", res)
	}
}
