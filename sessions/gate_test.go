package sessions

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

const hostileAddr, honestAddr = "[fd00::bad]:5061", "[fd00::1]:5061"

// from makes a request of a member with a branch and a Call-ID of its own.
func from(t *testing.T, addr, method, branch, call string) *sip.Request {
	t.Helper()
	req := parse(t, strings.NewReplacer("INVITE sip", method+" sip", "1 INVITE", "1 "+method, "branch=z9hG4bK1", "branch="+branch, "Call-ID: ", "Call-ID: "+call).Replace(good))
	req.SetSource(addr)
	return req
}

// A member that fills the gate with what the transaction layer never takes loses its own
// places: the transactions of others stay known, and memory stays bounded.
func TestGateForgetsWhatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.own("z9hG4bKours", honestAddr)
		for i := range 10 * maxKept {
			g.tap(from(t, hostileAddr, "INVITE", fmt.Sprintf("z9hG4bKx%d", i), fmt.Sprintf("c%d", i)))
		}
		if n := len(g.owner); n > maxKept+1 {
			t.Errorf("%d branches are remembered", n)
		}
		if n := len(g.waiting); n > maxKept {
			t.Errorf("%d calls wait", n)
		}
		res := sip.NewResponseFromRequest(from(t, honestAddr, "INVITE", "z9hG4bKours", "ours"), 200, "OK", nil)
		res.SetSource(honestAddr)
		g.tap(res)
		if branchOf(res.Via()) != "z9hG4bKours" {
			t.Error("the flood made a response to our own request unknown")
		}
		g.free("z9hG4bKours")
		if a := g.member(honestAddr); len(a.branches) != 0 {
			t.Errorf("a finished transaction keeps its place: %v", a.branches)
		}
	})
}

// A member that floods is read slowly; another one, at the same time, is not.
func TestGateReadsFloodsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		start := time.Now()
		const n = 1000
		for i := range n {
			g.tap(from(t, hostileAddr, "INVITE", fmt.Sprintf("z9hG4bKx%d", i), fmt.Sprintf("c%d", i)))
		}
		least := time.Duration(float64(n*inviteCost-paceBurst) / paceBytes * float64(time.Second))
		if took := time.Since(start); took < least {
			t.Errorf("%d INVITEs were read in %v, at least %v are meant", n, took, least)
		}
		start = time.Now()
		g.tap(from(t, honestAddr, "INVITE", "z9hG4bKh", "honest"))
		if took := time.Since(start); took > 0 {
			t.Errorf("an honest member waited %v", took)
		}
		g.close()
		start = time.Now()
		g.tap(from(t, hostileAddr, "INVITE", "z9hG4bKy", "last"))
		if took := time.Since(start); took > 0 {
			t.Errorf("after the end a reader waited %v", took)
		}
	})
}

// wire is a connection that takes what is said.
type wire struct{ sip.Connection }

func (wire) LocalAddr() net.Addr        { return &net.TCPAddr{} }
func (wire) WriteMsg(sip.Message) error { return nil }
func (wire) Ref(int) int                { return 1 }
func (wire) TryClose() (int, error)     { return 0, nil }

// What needs no answer any more is not kept by the transaction layer: an ACK would stay
// as long as the flow, a refused INVITE for 32 s.
func TestNothingIsKeptAfterItsAnswer(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	for _, method := range []string{"ACK", "INVITE"} {
		req := from(t, tv.flows.Addr(tv.id).String(), method, "z9hG4bKk"+method, "kept")
		req.SetTransport("TLS")
		tx := sip.NewServerTx("key", req, wire{}, slog.New(slog.DiscardHandler))
		if err := tx.Init(); err != nil {
			t.Fatal(err)
		}
		panel.onRequest(req, tx)
		select {
		case <-tx.Done():
		case <-time.After(3 * time.Second):
			t.Errorf("a transaction of %s is kept", method)
		}
	}
}

// deaf flows reach nobody while they are shut.
type deaf struct {
	Flows
	shut *atomic.Bool
}

func (d deaf) EnsureSIP(ctx context.Context, id devices.NodeID) error {
	if !d.shut.Load() {
		return d.Flows.EnsureSIP(ctx, id)
	}
	<-ctx.Done()
	return ctx.Err()
}

// A device in calls with several that no longer answer stops in the time of one of them.
func TestManyCallsEndTogether(t *testing.T) {
	var shut atomic.Bool
	others := []string{"a", "b", "c", "d"}
	members := []member{{slug: "tv", config: func(c *Config) { c.Flows = deaf{c.Flows, &shut} }}}
	for _, o := range others {
		members = append(members, member{slug: o, config: answers})
	}
	h := newHouse(t, members...)
	tv := h.phones["tv"]
	for _, o := range others {
		c := tv.calls(o)
		eventually(t, "the call is active", func() bool { return c.Info().State == StateActive })
	}
	shut.Store(true)
	start := time.Now()
	tv.stop()
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A member that misbehaves all the time is written about once a minute.
func TestMisbehaviourIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tv := &Agent{rate: map[devices.NodeID]*bucket{}}
		peer, n := devices.NodeID{9}, 0
		for range 600 {
			if tv.mayWarn(peer) {
				n++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n != 1 || !tv.mayWarn(peer) {
			t.Errorf("%d lines in a minute, and then silence: %v", n, !tv.mayWarn(peer))
		}
	})
}
