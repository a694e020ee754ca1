package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/discovery"
)

// joinRetry is the pause between attempts to reach the owner of a token; while no owner is
// in sight an attempt costs nothing, so it is short.
const joinRetry = 100 * time.Millisecond

// onPair serves a connection of ALPN hallway-pair/1: somebody proves a code that this
// device shows, a device proves our invitation, or one asks again after a crash.
func (a *Agent) onPair(ctx context.Context, conn *tls.Conn) {
	link, err := pairing.NewLink(ctx, conn, &a.key.PublicKey, false)
	if err != nil {
		return
	}
	defer link.Done()
	kind, err := link.First()
	if err != nil {
		return
	}
	if kind == "resume" {
		if err := link.AnswerResume(a.roster); err != nil {
			a.log.Info("a device asked to finish its joining", "err", err)
		}
		return
	}
	a.mu.Lock()
	w, invited := a.window, a.invited
	a.mu.Unlock()
	if err := link.Verify(w); err != nil {
		a.log.Warn("refused a pairing attempt", "addr", conn.RemoteAddr(), "err", err)
		return
	}
	if invited {
		if m, err := link.Admit(pairing.Owner{Log: a.roster, Key: a.key}); err != nil {
			a.log.Warn("an invited device did not join", "err", err)
		} else {
			a.log.Info("a device joined by invitation", "device", m.Slug)
		}
		return
	}
	if err := a.join(link, ""); err != nil {
		a.setPair(func(p *api.PairState) { p.State, p.Reason = "failed", err.Error() })
	}
}

// join is the device's half, after the proof.
func (a *Agent) join(link *pairing.Link, addr string) error {
	err := link.Join(pairing.Joiner{
		Store: a.store, Log: a.roster, Addr: addr, About: a.about(),
		Identify: func(i pairing.Invitation) error {
			a.log.Info("about to join a home", "home", i.HomeName, "as", i.Name, "room", i.Room)
			a.setPair(func(p *api.PairState) { p.State, p.Home, p.Name, p.Room = "joining", i.HomeName, i.Name, i.Room })
			return nil
		},
	})
	if err == nil {
		a.setPair(func(p *api.PairState) { p.State, p.Code, p.QR = "joined", "", "" })
	}
	return err
}

func (a *Agent) about() pairing.About {
	name := a.cfg.Name
	if name == "" {
		name = a.profile.Title
	}
	return pairing.About{Class: devices.Class(a.profile.Class), Name: name, Room: a.cfg.Room, Version: a.opt.Version}
}

func (a *Agent) setPair(f func(*api.PairState)) {
	a.mu.Lock()
	f(&a.pair)
	p := a.pair
	a.mu.Unlock()
	a.publish(api.Event{Kind: "pairing", Pairing: &p})
}

// finishJoining uses the join token, and finishes a joining that a crash cut off.
func (a *Agent) finishJoining(ctx context.Context) error {
	for ctx.Err() == nil && a.roster.Roster() == nil {
		err := a.resume(ctx)
		if err == nil && a.roster.Roster() == nil && a.opt.JoinToken != "" {
			var t pairing.Token
			if t, err = pairing.ParseToken(a.opt.JoinToken); err != nil {
				return err
			}
			err = a.joinByToken(ctx, t)
			if errors.Is(err, pairing.ErrWrongCode) || errors.Is(err, pairing.ErrClosed) || errors.Is(err, pairing.ErrGuessing) {
				a.log.Error("the join token is not accepted; make a new one with `hallway invite`", "err", err)
				a.setPair(func(p *api.PairState) { p.State, p.Reason = "failed", err.Error() })
				return nil // a used or wrong token does not become right
			}
		}
		pause := joinRetry
		if err != nil && !errors.Is(err, errNobody) {
			a.log.Info("joining goes on", "err", err)
			pause = 10 * joinRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (a *Agent) resume(ctx context.Context) error {
	p, err := pairing.LoadPending(a.store)
	if err != nil || p == nil {
		return err
	}
	pub, err := devices.ParseCompressedKey(p.Owner)
	if err != nil {
		return err
	}
	id := devices.NodeIDOf(pub)
	addrs := a.neighbourAddrs(func(n discovery.Neighbour) bool { return n.Prefix == [8]byte(id[:8]) })
	if ap, err := netip.ParseAddrPort(p.Addr); err == nil {
		addrs = append(addrs, ap)
	}
	return a.withLink(ctx, addrs, func(l *pairing.Link, _ string) error { return l.Resume(a.store, a.roster, *p) })
}

func (a *Agent) joinByToken(ctx context.Context, t pairing.Token) error {
	var addrs []netip.AddrPort
	if t.Seed != "" {
		tcp, err := net.ResolveTCPAddr("tcp", t.Seed)
		if err != nil {
			return fmt.Errorf("the address in the join token cannot be found: %w", err)
		}
		addrs = append(addrs, tcp.AddrPort())
	}
	addrs = append(addrs, a.neighbourAddrs(func(n discovery.Neighbour) bool {
		return n.Pair && n.HomeTag != "" && pairing.ShortIDOfPrefix(n.Prefix) == t.ShortID
	})...)
	return a.withLink(ctx, addrs, func(l *pairing.Link, addr string) error {
		if err := l.Prove(t.Secret); err != nil {
			return err
		}
		return a.join(l, addr)
	})
}

func (a *Agent) neighbourAddrs(keep func(discovery.Neighbour) bool) []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range a.tracker.Neighbours() {
		if keep(n) {
			out = append(out, n.Addrs...)
		}
	}
	return out
}

var errNobody = errors.New("no device with an open window is in sight yet")

// withLink runs an exchange with the first address that answers. A secret is tried on
// one device only: as soon as a connection stands its result counts.
func (a *Agent) withLink(ctx context.Context, addrs []netip.AddrPort, f func(*pairing.Link, string) error) error {
	a.joining.Lock()
	defer a.joining.Unlock()
	err := errNobody
	for _, addr := range addrs {
		var conn *tls.Conn
		if conn, err = a.mesh.DialPair(ctx, addr); err != nil {
			continue
		}
		var link *pairing.Link
		if link, err = pairing.NewLink(ctx, conn, &a.key.PublicKey, true); err == nil {
			if err = f(link, addr.String()); err == nil { // where multicast is blocked nobody else tells where it is
				id := devices.NodeIDOf(link.Peer)
				a.mesh.HintPrefix([8]byte(id[:8]), addrs)
			}
			link.Done()
		}
		_ = conn.NetConn().Close()
		return err
	}
	return err
}

// Add admits a device that shows a code. A code is never tried on several devices.
func (a *Agent) Add(ctx context.Context, req api.AddRequest) (devices.Member, error) {
	r, err := a.home()
	if err != nil {
		return devices.Member{}, err
	}
	if err := trust.MayEdit(r, a.self); err != nil {
		return devices.Member{}, err
	}
	code, err := pairing.ParseCode(req.Code)
	if err != nil {
		return devices.Member{}, err
	}
	addrs, err := a.whoWaits(req)
	if err != nil {
		return devices.Member{}, err
	}
	var m devices.Member
	err = a.withLink(ctx, addrs, func(l *pairing.Link, _ string) error {
		if err := l.Prove(string(code)); err != nil {
			return err
		}
		m, err = l.Admit(pairing.Owner{Log: a.roster, Key: a.key, Name: req.Name, Room: req.Room, Role: req.Role})
		return err
	})
	return m, err
}

// whoWaits finds the one device that is meant.
func (a *Agent) whoWaits(req api.AddRequest) ([]netip.AddrPort, error) {
	if req.Addr != "" {
		tcp, err := net.ResolveTCPAddr("tcp", req.Addr)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", api.ErrInput, err)
		}
		return []netip.AddrPort{tcp.AddrPort()}, nil
	}
	var ids []string
	var addrs []netip.AddrPort
	for _, n := range a.tracker.Neighbours() {
		id := pairing.ShortIDOfPrefix(n.Prefix)
		if !n.Pair || n.HomeTag != "" || req.ID != "" && !strings.EqualFold(id, req.ID) {
			continue
		}
		ids, addrs = append(ids, id), n.Addrs
	}
	switch {
	case len(ids) == 0 && req.ID != "":
		return nil, fmt.Errorf("%w: no device %s waits to be added; is its window still open, and is it on this network?", api.ErrInput, strings.ToUpper(req.ID))
	case len(ids) == 0:
		return nil, fmt.Errorf("%w: no device waits to be added; run `hallway pair` on it first", api.ErrInput)
	case len(ids) > 1:
		return nil, fmt.Errorf("%w: several devices wait to be added (%s); name the one that shows this code: `hallway add %s CODE`", api.ErrInput, strings.Join(ids, ", "), ids[0])
	}
	return addrs, nil
}
