package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/doctor"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// diagnose finds out about a call from this node to a name. It rings nobody and opens
// neither camera nor microphone.
func (a *Agent) diagnose(ctx context.Context, to string) api.Diagnosis {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	return doctor.Diagnose(a.named(ctx, devices.Slug(to), doctor.Facts{From: a.caller(), To: devices.Slug(to)}))
}

// caller says how this node stands itself.
func (a *Agent) caller() doctor.Caller {
	c := doctor.Caller{Name: a.about().Name}
	r, err := a.home()
	if err != nil {
		c.Fault = err.Error()
	} else {
		c.Name = r.Members[a.self].Name
	}
	c.Links, c.Loose = doctor.Links(a.cfg)
	return c
}

// named fills in what the name means, and examines the devices behind it side by side.
func (a *Agent) named(ctx context.Context, slug string, f doctor.Facts) doctor.Facts {
	if f.From.Fault != "" {
		return f
	}
	r, ok := a.dir.Snapshot().Resolve(slug)
	if !ok {
		f.Missing = a.missing(slug)
		return f
	}
	f.Name, f.Kind = r.Name, r.Kind
	others := slices.DeleteFunc(slices.Clone(r.Devices), func(d devices.Device) bool { return d.Self })
	f.Missing.Itself = len(r.Devices) > 0 && len(others) == 0
	if len(others) > maxExamined {
		f.More, others = len(others)-maxExamined, others[:maxExamined]
	}
	f.Devices = make([]doctor.Callee, len(others))
	var wg sync.WaitGroup
	for i, d := range others {
		wg.Go(func() { f.Devices[i] = a.callee(ctx, d, slug, f.From.Name) })
	}
	wg.Wait()
	return f
}

// missing says what is known of a name that nothing in the home has.
func (a *Agent) missing(slug string) doctor.Missing {
	m := doctor.Missing{Removed: a.roster.WasRemoved(slug)}
	r := a.roster.Roster()
	for _, t := range a.tracker.Things() {
		n, err := discovery.ParseHallway(t)
		if err != nil || n.Prefix == [8]byte(a.self[:8]) || isMember(r, n.Prefix) {
			continue
		}
		switch {
		case n.HomeTag != "":
			m.OtherHome = append(m.OtherHome, t.Name)
		default:
			m.NoHome = append(m.NoHome, t.Name)
		}
	}
	const few = 4 // anybody on the LAN can add to this
	m.OtherHome, m.NoHome = m.OtherHome[:min(len(m.OtherHome), few)], m.NoHome[:min(len(m.NoHome), few)]
	return m
}

func isMember(r *devices.Roster, prefix [8]byte) bool {
	if r == nil {
		return false
	}
	for id := range r.Members {
		if [8]byte(id[:8]) == prefix {
			return true
		}
	}
	return false
}

// callee examines one device: what is known, then each probe that the one before allows.
func (a *Agent) callee(ctx context.Context, d devices.Device, to, by string) doctor.Callee {
	c := doctor.Callee{Slug: d.Slug, Name: d.Name, By: by, NeverSeen: d.Status == devices.NeverSeen, Now: time.Now()}
	if at, ok := a.mesh.Live()[d.Node]; ok {
		c.LastHeard = at.LastHeard
	}
	a.sightedAs(d.Node, &c)
	for _, s := range d.Addrs {
		if x, err := netip.ParseAddrPort(s); err == nil && !slices.Contains(c.Addrs, x) {
			c.Addrs = append(c.Addrs, x)
		}
	}
	c.Near = a.near(c.Addrs)
	if d.Foreign {
		to = d.Slug // a room's name would mean its speaker, too
		a.speakerOf(d, &c)
	}
	c.Match, c.MatchErr = profiles.Match(*a.caps.Load(), d.Capabilities)
	if c.NeverSeen || c.Here {
		return c
	}
	p := a.mesh.Probe(ctx, d.Node)
	c.Flow = p.Flow
	reached := p.Flow.IsValid()
	for _, t := range p.Tried {
		o := outcomeOf(t.Err)
		reached = reached || o == doctor.Good
		dial := doctor.Dial{Addr: t.Addr, Outcome: o}
		if t.Err != nil {
			dial.Err = t.Err.Error()
		}
		c.Dialed = append(c.Dialed, dial)
	}
	if reached {
		a.converse(ctx, d, to, &c)
	}
	return c
}

// speakerOf adds who speaks for a foreign device, and whether it answers there. If that is
// this node it looks now, without opening anything.
func (a *Agent) speakerOf(d devices.Device, c *doctor.Callee) {
	c.Foreign, c.Here, c.Fault = true, d.Node == a.self, d.Fault
	speaker, ok := a.dir.Snapshot().Device(d.Node)
	if !ok {
		return
	}
	c.Speaker = speaker.Name
	for _, s := range speaker.Addrs {
		if x, err := netip.ParseAddrPort(s); err == nil {
			c.Addrs = append(c.Addrs, x)
		}
	}
	c.Near = a.near(c.Addrs)
}

// converse asks the device itself.
func (a *Agent) converse(ctx context.Context, d devices.Device, to string, c *doctor.Callee) {
	sipCtx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	w, err := a.sip.Options(sipCtx, d.Node, to)
	if err != nil {
		c.SIP.Err = err.Error()
		return
	}
	c.SIP = doctor.Answer{Code: w.Code, Words: w.Words, Took: w.Took}
	if r, err := a.ask(sipCtx, d, question{}); err != nil {
		c.Roster.Err = err.Error()
	} else {
		c.Roster = doctor.Rosters{Equal: slices.Equal(r.Heads, a.heads()), Mine: a.epoch(), Theirs: r.Epoch}
	}
	t, err := a.sip.TryMedia(ctx, d.Node)
	c.Media = doctor.Path{Tried: true, Local: t.Local, Remote: t.Remote, Took: t.Took}
	if err != nil {
		c.Media.Err, c.Media.Blocked = err.Error(), errors.Is(err, sessions.ErrNoPath)
	}
}

// sightedAs adds what discovery shows of a node.
func (a *Agent) sightedAs(id devices.NodeID, c *doctor.Callee) {
	for _, t := range a.tracker.Things() {
		n, err := discovery.ParseHallway(t)
		if err != nil || n.Prefix != [8]byte(id[:8]) {
			continue
		}
		c.Sighted, c.SightedAt = true, t.LastSeen
		for _, x := range n.Addrs {
			if !slices.Contains(c.Addrs, x) {
				c.Addrs = append(c.Addrs, x)
			}
		}
	}
}

// near reports whether one of the addresses is on a network of this node.
func (a *Agent) near(addrs []netip.AddrPort) bool {
	for _, i := range a.monitor.Interfaces() {
		for _, p := range i.Addrs {
			if slices.ContainsFunc(addrs, func(x netip.AddrPort) bool { return p.Masked().Contains(x.Addr().Unmap().WithZone("")) }) {
				return true
			}
		}
	}
	return false
}

// outcomeOf sorts the ways in which a dial ends.
func outcomeOf(err error) doctor.Outcome {
	var timeout net.Error
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		return doctor.Good
	case errors.Is(err, overlay.ErrNoConnection):
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return doctor.Refused
		case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
			return doctor.NoRoute
		}
		return doctor.Silent
	case errors.Is(err, trust.ErrStranger):
		return doctor.Stranger
	case errors.Is(err, overlay.ErrOtherNode):
		return doctor.OtherNode
	case errors.Is(err, overlay.ErrRefused):
		return doctor.Unwanted
	case errors.Is(err, overlay.ErrPeerFull):
		return doctor.Full
	case errors.As(err, &record):
		return doctor.OtherThing
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return doctor.Mute
	}
	return doctor.OtherThing
}
