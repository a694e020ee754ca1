package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// inviting is how long the printed address is good; a window is open no longer.
	inviting = 15 * time.Minute
	// ringing is how long it rings in the demo's rooms before somebody accepts.
	ringing = time.Second
	// looking is how often that is looked at.
	looking = 100 * time.Millisecond
)

// door is how a browser on this machine comes in: the first device serves the companion on
// 127.0.0.1:port of its own namespace (`web.kiosk`), and what connects to the same port of the
// machine's loopback is passed there, byte for byte. So both ends agree on the origin
// http://localhost:port, which browsers hold to be secure.
type door struct {
	port  string
	https string // where the device serves with TLS; empty: on its usual port
	ln    *net.TCPListener
	ns    string // where it leads
	g     sync.WaitGroup

	mu    sync.Mutex
	conns map[*net.TCPConn]bool // nil once it is closed
}

// newDoor takes a free port of the machine's loopback.
func newDoor() (*door, error) {
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return &door{port: port, ln: ln, conns: map[*net.TCPConn]bool{}}, nil
}

// makeDoor takes the port and has the first device serve there.
func (d *demo) makeDoor() (err error) {
	if d.door, err = d.net.door(); err != nil {
		return err
	}
	a := d.agents[0]
	a.config = filepath.Join(d.o.Dir, a.class+".yaml")
	return writeFile(a.config, fmt.Appendf(nil, "web: {listen: '%s', kiosk: '127.0.0.1:%s'}\n", d.door.https, d.door.port))
}

// lead passes what connects into a namespace, until close.
func (d *door) lead(ns string) {
	d.ns = ns
	d.g.Go(func() {
		for {
			in, err := d.ln.AcceptTCP()
			if err != nil {
				return // closed
			}
			d.g.Go(func() { d.pass(in) })
		}
	})
}

func (d *door) pass(in *net.TCPConn) {
	out, err := d.dial()
	if err != nil {
		_ = in.Close()
		return
	}
	if !d.hold(in, out) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { stream(in, out) })
	stream(out, in)
	back.Wait()
	d.drop(in, out)
}

// stream copies until the end of from, which to hears of.
func stream(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from) // either side may go
	_ = to.CloseWrite()
}

func (d *door) hold(conns ...*net.TCPConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range conns {
		if d.conns == nil {
			_ = c.Close()
			continue
		}
		d.conns[c] = true
	}
	return d.conns != nil
}

func (d *door) drop(conns ...*net.TCPConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(d.conns, c)
	}
}

// dial connects inside the namespace. A socket belongs to the namespace of the thread that made
// it, so the thread goes there and back.
func (d *door) dial() (conn *net.TCPConn, err error) {
	to, err1 := os.Open(filepath.Join("/var/run/netns", d.ns))
	runtime.LockOSThread()
	home, err2 := os.Open("/proc/thread-self/ns/net")
	defer func() { _, _ = to.Close(), home.Close() }() // nil is an error that nobody needs
	port, err3 := strconv.Atoi(d.port)
	if err := errors.Join(err1, err2, err3); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	if err = unix.Setns(int(to.Fd()), unix.CLONE_NEWNET); err == nil {
		conn, err = net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// Nothing else may run on this thread, and its end would be that of the agents that
			// were started on it (Pdeathsig).
			panic(back)
		}
	}
	runtime.UnlockOSThread()
	return conn, err
}

// close ends what passes; d may be nil.
func (d *door) close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	for c := range d.conns {
		_ = c.Close()
	}
	d.conns = nil
	d.mu.Unlock()
	err := d.ln.Close()
	d.g.Wait()
	if errors.Is(err, net.ErrClosed) { // where the device has the port, it was given up before
		return nil
	}
	return err
}

// invite prints an address by which one browser comes in as the home's owner, until it did. The
// demo stands for the person who confirms it.
func (d *demo) invite(ctx context.Context) error {
	owner := d.agents[0]
	var w api.PhoneWindow
	open := func() error {
		req := api.PhoneRequest{Name: "You", Role: devices.RoleOwner, Minutes: int(inviting.Minutes())}
		if err := owner.api.Do(ctx, http.MethodPost, "/phones/window", req, &w); err != nil {
			return err
		}
		u, err := url.Parse(w.URL)
		if err != nil {
			return err
		}
		d.say("\nOpen this in a browser on this machine, then tap a room (for one browser, %.0f minutes):\n\n  %s#%s&name=Browser\n", inviting.Minutes(), d.origin(), u.Fragment)
		return nil
	}
	if err := open(); err != nil {
		return err
	}
	shown := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(looking):
		}
		if err := owner.api.Do(ctx, http.MethodGet, "/phones/window", nil, &w); err != nil {
			return err
		}
		switch w.State {
		case "waiting":
			if w.Words != shown {
				shown = w.Words
				d.say("A browser came; its words are: %s. It is let in.", w.Words)
			}
			if err := owner.api.Do(ctx, http.MethodPost, "/phones/window/confirm", map[string]bool{"accept": true}, nil); err != nil {
				return err
			}
		case "paired":
			d.say("It belongs to the home now, as an owner; %s opens it again.", d.origin())
			return nil
		case "closed", "refused":
			if err := open(); err != nil {
				return err
			}
		}
	}
}

func (d *demo) origin() string { return "http://localhost:" + d.door.port + "/" }

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.o.Out, format+"\n", args...) }

// answers accepts what rings at a device, as somebody in its room.
func (d *demo) answers(ctx context.Context, a *agentProc) error {
	since := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(looking):
		}
		var calls []sessions.CallInfo
		if err := a.api.Do(ctx, http.MethodGet, "/calls", nil, &calls); err != nil {
			return err
		}
		for _, c := range calls {
			switch began := since[c.ID]; {
			case c.State != sessions.StateIncoming:
				delete(since, c.ID)
			case began.IsZero():
				since[c.ID] = time.Now()
				d.say("the %s rings, called by %s", a.name, c.Peer)
			case time.Since(began) >= ringing:
				// Whoever called may have given up just now.
				_ = a.api.Do(ctx, http.MethodPost, "/calls/"+c.ID+"/answer", nil, nil)
				delete(since, c.ID)
			}
		}
	}
}

// keep leaves the home to whoever is at the machine, until ctx ends.
func (d *demo) keep(ctx context.Context) error {
	d.say("\nThe home goes on; where it rings, somebody accepts after %v. Ctrl-C ends it.", ringing)
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return d.invite(inner) })
	for _, a := range d.agents[:2] {
		g.Go(func() error { return d.answers(inner, a) })
	}
	exe, _ := os.Executable()
	d.say("Or, in another terminal:\n")
	for _, line := range []string{"devices --all", "call kitchen", "call front-door", "doctor"} {
		d.say("  %s --data %s %s", exe, d.agents[0].dir, line)
	}
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil // that it was ended is no failure
}
