package e2e

import (
	"bufio"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// knocker holds the key of a device, and says what the others still give it.
type knocker struct {
	mu   sync.Mutex
	said []knock
}

type knock struct {
	At     time.Time
	Target string
	What   string
}

// knocks runs the program that speaks with a device's key from a host of its own.
func knocks(t *testing.T, l *labT, program, store string, targets ...string) *knocker {
	t.Helper()
	h, err := l.Host("knocker")
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(t.Context(), program, "-mode", "removed", "-data", store, "-targets", strings.Join(targets, ","), "-for", "2m")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k := &knocker{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			var x knock
			if json.Unmarshal(lines.Bytes(), &x) == nil {
				k.mu.Lock()
				k.said = append(k.said, x)
				k.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-done
		_ = cmd.Wait()
	})
	return k
}

// last is when a target last gave one of these to the key; zero if never since.
func (k *knocker) last(target string, since time.Time, what ...string) (at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, x := range k.said {
		if x.Target == target && x.At.After(since) && slices.Contains(what, x.What) {
			at = x.At
		}
	}
	return at
}

// refusedSince reports whether a target has refused both protocols after a time.
func (k *knocker) refusedSince(target string, since time.Time) bool {
	return !k.last(target, since, "refused sip").IsZero() && !k.last(target, since, "refused hallway-overlay/1").IsZero()
}

// A removed device is refused by TLS, overlay and SIP on every node within 10 s; its open
// flows, its call with the media, and its place in every list and event stream end. Nodes
// that were off or stopped compare rosters before they serve it anything.
func TestA9_RemovedDeviceIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	member := program(t, "member")
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", clip(t, 550), "--auto-answer", "yes")
	off := newNode(t, l, "Off", "speaker", "")
	asleep := newNode(t, l, "Asleep", "speaker", "")
	lost := newNode(t, l, "Lost", "panel", "", "--source-clip", clip(t, 660))
	stolen := newNode(t, l, "Stolen", "phone", "")
	tv.invite(panel, off, asleep, lost, stolen)
	stolen.stop()
	k := knocks(t, l, member, storeOf(t, stolen), tv.host.IPv4, panel.host.IPv4, off.host.IPv4, asleep.host.IPv4)
	all := []*node{tv, panel, off, asleep}
	for _, n := range all {
		n.eventually(10*time.Second, "the key is served while it belongs", func() bool {
			return !k.last(n.host.IPv4, time.Time{}, "sip").IsZero() && !k.last(n.host.IPv4, time.Time{}, "records").IsZero()
		})
	}
	c := ask[call](lost, "call", "panel", "--detach")
	lost.eventually(5*time.Second, "sound and picture", flows(lost, c.ID))
	panel.eventually(5*time.Second, "sound and picture", flows(panel, c.ID))
	addrs := addresses(t, lost.pid())
	if n := flowsTo(t, panel.pid(), addrs...); n == 0 {
		t.Fatal("no connection is seen before the removal; the look at the kernel is blind")
	}
	feed := panel.events()
	off.kill()
	asleep.signal(syscall.SIGSTOP)

	removal := time.Now()
	tv.run("home", "remove", "lost")
	tv.run("home", "remove", "stolen")
	gone := func(n *node) func() bool {
		return func() bool { return n.sees("lost") == "" && n.sees("stolen") == "" }
	}
	panel.eventually(10*time.Second, "the call ends", func() bool { return panel.call(c.ID).State == "ended" })
	for _, n := range []*node{tv, panel} {
		n.eventually(10*time.Second-time.Since(removal), "the removed are in no list", gone(n))
		n.eventually(10*time.Second-time.Since(removal), "no connection with them is open", func() bool {
			return flowsTo(t, n.pid(), addrs...) == 0
		})
		n.eventually(10*time.Second-time.Since(removal), "their key is refused", func() bool { return k.refusedSince(n.host.IPv4, removal) })
	}
	t.Logf("all that is seen from outside ended %v after the removal", time.Since(removal).Round(time.Millisecond))
	streamed(t, feed, c.ID)
	if r := panel.call(c.ID).Reason; !strings.Contains(r, "no longer belongs") {
		t.Errorf("the call ended with %q", r)
	}
	lost.eventually(15*time.Second, "its own end of the call is over too", func() bool { return lost.call(c.ID).State == "ended" })
	if out, code := lost.try("call", "panel"); code == 0 {
		t.Errorf("a removed device calls: %s", out)
	}

	woke := time.Now()
	off.start()
	asleep.signal(syscall.SIGCONT)
	for _, n := range []*node{off, asleep} {
		n.eventually(10*time.Second, "it knows of the removals", gone(n))
		n.eventually(10*time.Second, "it refuses the key", func() bool { return k.refusedSince(n.host.IPv4, time.Now().Add(-time.Second)) })
		if at := k.last(n.host.IPv4, woke, "sip"); !at.IsZero() {
			t.Errorf("%s served SIP to a removed key %v after it woke, before it compared rosters", n.name, at.Sub(woke))
		}
	}
	time.Sleep(2 * time.Second) // long enough for a second thought
	for _, n := range all {
		since := removal.Add(10 * time.Second)
		if n == off || n == asleep {
			since = time.Now().Add(-2 * time.Second)
		}
		if at := k.last(n.host.IPv4, since, "sip", "records", "flow sip", "flow hallway-overlay/1"); !at.IsZero() {
			t.Errorf("%s gave something to a removed key %v after the removal", n.name, at.Sub(removal))
		}
	}
}

// streamed checks that the event stream told of the end of the call and of the device.
func streamed(t *testing.T, feed <-chan event, id string) {
	t.Helper()
	var ended, left bool
	for until := time.After(5 * time.Second); !ended || !left; {
		select {
		case e := <-feed:
			ended = ended || e.Call != nil && e.Call.ID == id && e.Call.State == "ended"
			left = left || e.Change != nil && e.Change.Kind == "removed" && e.Change.Device != nil && e.Change.Device.Slug == "lost"
		case <-until:
			t.Fatalf("the event stream told of the call's end: %v, of the device's: %v", ended, left)
		}
	}
}
