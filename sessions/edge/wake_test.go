package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
)

// wake is sessions.Config.Wake without a push service: the test opens the pages itself.
func (n *node) wake(ctx context.Context, _ devices.Device, phones []devices.NodeID) <-chan devices.Device {
	n.mu.Lock()
	n.told = append(n.told, phones...)
	patience := n.patience
	n.mu.Unlock()
	out := make(chan devices.Device)
	ctx, cancel := context.WithTimeout(ctx, patience)
	go func() {
		defer cancel()
		defer close(out)
		for len(phones) > 0 && ctx.Err() == nil {
			phones = slices.DeleteFunc(phones, func(id devices.NodeID) bool {
				d, awake := n.dir.Load().Awake(id)
				if awake {
					select {
					case out <- d:
					case <-ctx.Done():
					}
				}
				return awake
			})
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return out
}

func wakeOf(t testing.TB, person string) *records.Wake {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return &records.Wake{Endpoint: "https://push.example/" + person, Key: secret}
}

// sleeps closes a page whose phone is to be woken.
func (p *page) sleeps() *page {
	p.n.t.Helper()
	p.wake = wakeOf(p.n.t, p.person)
	p.register()
	_ = p.ws.Close(websocket.StatusNormalClosure, "")
	p.n.waitFor(p.n.t, p.person+" is asleep", func() bool { return p.n.bindings[p.id].Asleep })
	return p
}

// A phone that the call wakes rings, alone of its person's, and may win.
func TestSleepingPhone(t *testing.T) {
	n := newNode(t)
	maria, other, sam := n.phone("maria").open().register(), n.phone("sam").open().register(), n.phone("sam").open().register().sleeps()
	maria.request("INVITE", "sam", "w1", "w1", "m", "", "", maria.sdp())
	rings := other.asked(sip.INVITE)
	other.respond(rings, 180, "o")
	if s := maria.status(); s != 180 {
		t.Fatalf("the caller hears %d", s)
	}
	n.waitFor(t, "the phone is told", func() bool { return slices.Equal(n.told, []devices.NodeID{sam.id}) })
	sam.open().register()
	sam.respond(sam.asked(sip.INVITE), 200, "s")
	other.respond(other.asked(sip.CANCEL), 200, "o") // and not a second INVITE
	other.respond(rings, 487, "o")
	if s := maria.status(); s != 200 {
		t.Fatalf("the caller hears %d", s)
	}
}

// Nobody else rings: the call waits, and ends when nobody came, or when its caller has enough.
func TestSleepingPhone_StaysAsleep(t *testing.T) {
	n := newNode(t)
	maria := n.phone("maria").open().register()
	n.phone("sam").open().register().sleeps()
	n.setPatience(200 * time.Millisecond)
	maria.request("INVITE", "sam", "w1", "w1", "m", "", "", maria.sdp())
	if s := maria.status(); s != 480 {
		t.Errorf("nobody came, the caller hears %d", s)
	}
	n.setPatience(time.Minute)
	began := time.Now()
	maria.request("INVITE", "sam", "w2", "w2", "m", "", "", maria.sdp())
	n.waitFor(t, "the phone is told", func() bool { return len(n.told) == 2 })
	maria.seq--
	maria.request("CANCEL", "sam", "w2", "w2", "m", "", "", "")
	if a, b := maria.status(), maria.status(); a+b != 200+487 {
		t.Errorf("the caller gave up and hears %d and %d", a, b)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %s", took)
	}
}

// Who does not want to be disturbed is not woken, and who comes back is called as ever.
func TestSleepingPhone_QuietOrAwake(t *testing.T) {
	n := newNode(t)
	maria, quiet, sam := n.phone("maria").open().register(), n.phone("sam").open(), n.phone("sam").open()
	quiet.quiet = true
	quiet.sleeps()
	maria.request("INVITE", "sam", "w1", "w1", "m", "", "", maria.sdp())
	if s := maria.status(); s != 480 {
		t.Errorf("the caller hears %d", s)
	}
	sam.register().sleeps().open().register()
	n.waitFor(t, "it is awake", func() bool { return !n.bindings[sam.id].Asleep })
	maria.request("INVITE", "sam", "w2", "w2", "m", "", "", maria.sdp())
	sam.respond(sam.asked(sip.INVITE), 603, "s")
	if s := maria.status(); s != 603 {
		t.Errorf("the caller hears %d", s)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.told) != 0 {
		t.Errorf("%d phones were told", len(n.told))
	}
}

// A page that its system has put to sleep is silent while its browser still answers. It wakes up by itself.
func TestSleepingPhone_Frozen(t *testing.T) {
	n := newNode(t)
	maria, sam, plain := n.phone("maria").open().register(), n.phone("sam").open(), n.phone("sam").open().register()
	sam.wake = wakeOf(t, "sam")
	sam.register()
	later := time.Now().Add(frozenAfter + time.Second)
	n.edge.Review(later)
	n.mu.Lock()
	slept := slices.Clone(n.slept)
	n.mu.Unlock()
	if !slices.Equal(slept, []devices.NodeID{sam.id}) { // who cannot be woken is called as ever
		t.Fatalf("asleep are %v, not %v", slept, sam.id)
	}
	sam.write("\r\n\r\n") // its ping
	n.waitFor(t, "it is awake", func() bool { return !n.bindings[sam.id].Asleep })
	maria.request("INVITE", "sam", "f1", "f1", "m", "", "", maria.sdp())
	sam.respond(sam.asked(sip.INVITE), 200, "s")
	plain.asked(sip.INVITE)
	if s := maria.status(); s != 200 {
		t.Fatalf("the caller hears %d", s)
	}
	n.waitFor(t, "it is in a call", func() bool { return n.bindings[sam.id].Busy })
	n.edge.Review(later.Add(time.Hour)) // a call keeps it awake
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.slept) != 1 {
		t.Errorf("in a call it fell asleep: %v", n.slept)
	}
}

func (n *node) setPatience(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.patience = d
}
