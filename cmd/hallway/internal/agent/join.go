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
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/profiles"
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
	a.setPair(func(p *api.PairState) { p.State = "naming" })
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
	link, addr, end, err := a.openLink(ctx, addrs)
	if err != nil {
		return err
	}
	defer end()
	if err = f(link, addr); err == nil {
		a.hintPeer(link, addrs)
	}
	return err
}

// openLink connects to the first address that answers; end closes the connection.
func (a *Agent) openLink(ctx context.Context, addrs []netip.AddrPort) (link *pairing.Link, addr string, end func(), err error) {
	err = errNobody
	for _, at := range addrs {
		var conn *tls.Conn
		if conn, err = a.mesh.DialPair(ctx, at); err != nil {
			continue
		}
		if link, err = pairing.NewLink(ctx, conn, &a.key.PublicKey, true); err != nil {
			_ = conn.NetConn().Close()
			return nil, "", nil, err
		}
		return link, at.String(), func() {
			link.Done()
			_ = conn.NetConn().Close()
		}, nil
	}
	return nil, "", nil, err
}

// hintPeer tells the overlay where the other side is: where multicast is blocked nobody else does.
func (a *Agent) hintPeer(link *pairing.Link, addrs []netip.AddrPort) {
	id := devices.NodeIDOf(link.Peer)
	a.mesh.HintPrefix([8]byte(id[:8]), addrs)
}

// candidate is a device that has proved its code and waits until a person has named it.
type candidate struct {
	code  pairing.Code
	link  *pairing.Link
	addrs []netip.AddrPort
	about pairing.About
	end   func()      // closes its connection
	late  *time.Timer // ends it
}

// Identify implements api.Backend: the code is proved, the device says what it is and waits for Add.
func (a *Agent) Identify(ctx context.Context, req api.AddRequest) (api.Candidate, error) {
	code, err := a.mayAdd(req)
	if err != nil {
		return api.Candidate{}, err
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	if c := a.takeCandidate(code); c != nil { // asked again: a page that was loaded anew
		a.holdCandidate(c)
		return a.describe(c), nil
	}
	addrs, err := a.whoWaits(req)
	if err != nil {
		return api.Candidate{}, err
	}
	link, _, end, err := a.openLink(context.WithoutCancel(ctx), addrs) // it outlives the request
	if err != nil {
		return api.Candidate{}, err
	}
	c := &candidate{code: code, link: link, addrs: addrs, end: end}
	asked := context.AfterFunc(ctx, end) // until it is proved it does not
	if err = link.Prove(string(code)); err == nil {
		c.about, err = link.Identify()
	}
	if !asked() {
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		return api.Candidate{}, err
	}
	c.late = time.AfterFunc(pairing.NamingTime, func() {
		a.takeCandidate(code)
		end()
	})
	a.holdCandidate(c)
	return a.describe(c), nil
}

func (a *Agent) describe(c *candidate) api.Candidate {
	title := string(c.about.Class)
	if p, err := profiles.ForClass(title); err == nil {
		title = p.Title
	}
	return api.Candidate{ID: pairing.ShortID(devices.NodeIDOf(c.link.Peer)), Class: c.about.Class, Is: title, Name: c.about.Name, Room: c.about.Room, Version: c.about.Version}
}

// takeCandidate takes the device that waits to be named, if it proved this code.
func (a *Agent) takeCandidate(code pairing.Code) *candidate {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.candidate
	if c == nil || c.code != code {
		return nil
	}
	a.candidate = nil
	return c
}

// holdCandidate keeps one device waiting; another one is let go. Nil lets all go.
func (a *Agent) holdCandidate(c *candidate) {
	a.mu.Lock()
	old := a.candidate
	a.candidate = c
	a.mu.Unlock()
	if old != nil {
		old.late.Stop()
		old.end()
	}
}

// endCandidate lets whoever waits go when the agent stops.
func (a *Agent) endCandidate(ctx context.Context) error {
	<-ctx.Done()
	a.joining.Lock()
	defer a.joining.Unlock()
	a.holdCandidate(nil)
	return nil
}

// Add admits a device that shows a code. A code is never tried on several devices.
func (a *Agent) Add(ctx context.Context, req api.AddRequest) (devices.Member, error) {
	code, err := a.mayAdd(req)
	if err != nil {
		return devices.Member{}, err
	}
	who := pairing.Owner{Log: a.roster, Key: a.key, Name: req.Name, Room: req.Room, Role: req.Role}
	if c := a.takeCandidate(code); c != nil {
		defer c.end()
		c.late.Stop()
		m, err := c.link.Admit(who)
		if err == nil {
			a.hintPeer(c.link, c.addrs)
		}
		return m, err
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
		m, err = l.Admit(who)
		return err
	})
	return m, err
}

// mayAdd says whether this node may admit a device, and reads its code.
func (a *Agent) mayAdd(req api.AddRequest) (pairing.Code, error) {
	if _, err := a.mayEdit(); err != nil {
		return "", err
	}
	return pairing.ParseCode(req.Code)
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
