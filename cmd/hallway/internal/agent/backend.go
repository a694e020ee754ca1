package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// Status implements api.Backend.
func (a *Agent) Status() api.Status {
	s := api.Status{
		Version: a.opt.Version, Node: a.self, ShortID: pairing.ShortID(a.self), Name: a.about().Name, Class: a.profile.Class,
		Listen: a.listen.String(), Since: a.since, PID: os.Getpid(),
	}
	if r := a.roster.Roster(); r.Has(a.self) {
		m := r.Members[a.self]
		s.Home, s.Name, s.URI = r.Home.String(), m.Name, devices.AOR{Slug: m.Slug, Home: r.Home}.String()
	}
	return s
}

// Directory implements api.Backend.
func (a *Agent) Directory() *devices.Snapshot { return a.dir.Snapshot() }

// Calls implements api.Backend.
func (a *Agent) Calls() []sessions.CallInfo { return a.sip.Calls() }

// Call implements api.Backend.
func (a *Agent) Call(id string) (sessions.CallInfo, error) { return a.sip.Get(id) }

// StartCall implements api.Backend. It waits until rosters were compared: a node that has
// just started serves nobody, not even itself, before.
func (a *Agent) StartCall(to string, video bool) (sessions.CallInfo, error) {
	if _, err := a.home(); err != nil {
		return sessions.CallInfo{}, err
	}
	<-a.mesh.Synced()
	c, err := a.sip.Call(to, sessions.CallOptions{Video: video})
	if err != nil {
		return sessions.CallInfo{}, err
	}
	return c.Info(), nil
}

// Answer implements api.Backend.
func (a *Agent) Answer(id string) error { return a.sip.Answer(id) }

// Decline implements api.Backend.
func (a *Agent) Decline(id string) error { return a.sip.Decline(id) }

// Hangup implements api.Backend.
func (a *Agent) Hangup(id string) error { return a.sip.Hangup(id) }

// ChangeCall implements api.Backend.
func (a *Agent) ChangeCall(ctx context.Context, id string, c api.CallChange) (sessions.CallInfo, error) {
	var errs []error
	if c.Hold != nil {
		errs = append(errs, a.sip.Hold(ctx, id, *c.Hold))
	}
	if c.Mute != nil {
		errs = append(errs, a.sip.Mute(ctx, id, *c.Mute))
	}
	if c.Video != "" {
		d := map[string]profiles.Direction{"on": profiles.SendRecv, "receive": profiles.RecvOnly, "off": profiles.Inactive}[c.Video]
		errs = append(errs, a.sip.Video(ctx, id, d))
	}
	if err := errors.Join(errs...); err != nil {
		return sessions.CallInfo{}, err
	}
	return a.sip.Get(id)
}

// Process implements api.Backend.
func (a *Agent) Process() api.Process {
	runtime.GC() // else what is counted says more about the collector than about the agent
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	p := api.Process{Goroutines: runtime.NumGoroutine(), HeapLive: live[0].Value.Uint64(), OpenFiles: -1}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.OpenFiles = len(fds) - 1 // without the folder itself
	}
	return p
}

// OpenPairing implements api.Backend: a fresh code, shown by this new device.
func (a *Agent) OpenPairing(minutes int) (api.PairState, error) {
	if a.roster.Roster() != nil {
		return api.PairState{}, trust.ErrHomeExists
	}
	code := pairing.NewCode()
	w, err := a.openWindow(string(code), minutes, false)
	if err != nil {
		return api.PairState{}, err
	}
	p := api.PairState{State: "open", Code: code.String(), ShortID: pairing.ShortID(a.self), QR: pairing.QR(a.self, code), Until: w.Until()}
	a.setPair(func(s *api.PairState) { *s = p })
	return p, nil
}

func (a *Agent) openWindow(secret string, minutes int, invited bool) (*pairing.Window, error) {
	w, err := pairing.OpenWindow(a.store, secret, time.Duration(minutes)*time.Minute)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.window, a.invited = w, invited
	a.announceNow()
	return w, nil
}

// ClosePairing implements api.Backend.
func (a *Agent) ClosePairing() error {
	a.mu.Lock()
	w := a.window
	a.mu.Unlock()
	if w == nil {
		return nil
	}
	a.setPair(func(p *api.PairState) { *p = api.PairState{State: "closed"} })
	return w.Close()
}

// Pairing implements api.Backend.
func (a *Agent) Pairing() api.PairState {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pair
	if p.State == "open" && a.window != nil {
		if err := a.window.Err(); err != nil {
			p.State, p.Reason = "closed", err.Error()
		}
	}
	return p
}

// Invite implements api.Backend: a one-time token, made by an owner.
func (a *Agent) Invite(minutes int, seed string) (api.InviteState, error) {
	r, err := a.home()
	if err != nil {
		return api.InviteState{}, err
	}
	if err := trust.MayEdit(r, a.self); err != nil {
		return api.InviteState{}, err
	}
	t := pairing.NewToken(a.self, seed)
	if _, err := pairing.ParseToken(t.String()); err != nil {
		return api.InviteState{}, fmt.Errorf("%w: %w", api.ErrInput, err)
	}
	w, err := a.openWindow(t.Secret, minutes, true)
	if err != nil {
		return api.InviteState{}, err
	}
	return api.InviteState{Token: t.String(), Until: w.Until()}, nil
}

// Events implements api.Backend; the channel ends with ctx.
func (a *Agent) Events(ctx context.Context) <-chan api.Event {
	own := make(chan api.Event, 256)
	a.mu.Lock()
	a.subs[own] = struct{}{}
	a.mu.Unlock()
	out := make(chan api.Event)
	feed := a.dir.Subscribe(ctx)
	go func() { // ends with ctx, which the HTTP server bounds
		defer close(out)
		defer func() {
			a.mu.Lock()
			delete(a.subs, own)
			a.mu.Unlock()
		}()
		for {
			var e api.Event
			select {
			case <-ctx.Done():
				return
			case c, ok := <-feed:
				if !ok {
					return
				}
				e = api.Event{Kind: "directory", Change: &c}
			case e = <-own:
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (a *Agent) publish(e api.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ch := range a.subs {
		select {
		case ch <- e:
		default: // a reader that stopped reading misses events; it can ask anew
		}
	}
}
