package web

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxConns bounds the connections of a listener, maxPerSource those of one address: a
	// browser opens six, and one more for each stream and socket of a tab. Beyond that the
	// oldest makes room on which nobody has logged in or which says nothing, so whoever
	// holds many keeps nobody out, from however many addresses.
	maxConns, maxPerSource = 512, 64
	// perSecond and burst bound an address's requests: opening the app takes some twenty.
	perSecond, burst = 50, 200
	// failures an address may make at once, and every failEvery another: codes must not be
	// guessed, and windows not be closed by guessing.
	failures, failEvery = 5, 15 * time.Second
	// maxBody bounds a request's body: names, keys and rules.
	maxBody = 64 << 10
	// maxSources bounds the addresses that are remembered; a link has no more that are awake.
	maxSources = 1024
)

// source is the address of a request.
func source(r *http.Request) string { return hostOf(r.RemoteAddr) }

func hostOf(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return a.Addr().Unmap().WithZone("").String()
	}
	return addr
}

// pace bounds what one address may do.
type pace struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*limits
}

type limits struct{ requests, failures *rate.Limiter }

func newPace(now func() time.Time) *pace { return &pace{now: now, all: map[string]*limits{}} }

func (p *pace) of(source string) *limits {
	l := p.all[source]
	if l == nil {
		if len(p.all) >= maxSources {
			p.forget()
		}
		l = &limits{rate.NewLimiter(perSecond, burst), rate.NewLimiter(rate.Every(failEvery), failures)}
		p.all[source] = l
	}
	return l
}

// forget drops those who did nothing wrong lately, and if that is nobody, anybody.
func (p *pace) forget() {
	for s, l := range p.all {
		if l.failures.TokensAt(p.now()) >= failures {
			delete(p.all, s)
		}
	}
	for s := range p.all {
		if len(p.all) < maxSources {
			return
		}
		delete(p.all, s)
	}
}

func (p *pace) allow(source string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(source).requests.AllowN(p.now(), 1)
}

func (p *pace) barred(source string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(source).failures.TokensAt(p.now()) < 1
}

func (p *pace) failed(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(source).failures.AllowN(p.now(), 1)
}

// conns makes room for new connections by closing the oldest that serves no session now.
type conns struct {
	max, each int

	mu    sync.Mutex
	clock uint64
	loose map[net.Conn]uint64 // serves no session, and since when
	busy  map[net.Conn]bool   // serves one
	from  map[string]int
}

type connKey struct{}

// serves keeps the connection of a request, which a session has proved to be of this home,
// until it is answered.
func serves(ctx context.Context) {
	if f, ok := ctx.Value(connKey{}).(func()); ok {
		f()
	}
}

// with is http.Server's ConnContext.
func (c *conns) with(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, ok := c.loose[conn]; ok {
			delete(c.loose, conn)
			c.busy[conn] = true
		}
	})
}

func newConns(most, each int) *conns {
	return &conns{max: most, each: each, loose: map[net.Conn]uint64{}, busy: map[net.Conn]bool{}, from: map[string]int{}}
}

// state is http.Server's ConnState. A connection that was taken over counts no more: its
// handler bounds it.
func (c *conns) state(conn net.Conn, s http.ConnState) {
	who := hostOf(conn.RemoteAddr().String())
	var victim net.Conn
	c.mu.Lock()
	c.clock++
	switch s {
	case http.StateNew:
		if c.from[who]++; c.from[who] > c.each {
			victim = c.oldest(who)
		} else if len(c.loose)+len(c.busy) >= c.max {
			victim = c.oldest("")
		}
		c.loose[conn] = c.clock
		if victim == nil && (c.from[who] > c.each || len(c.loose)+len(c.busy) > c.max) {
			victim = conn // all others are at work
		}
	case http.StateActive, http.StateIdle:
		delete(c.busy, conn)
		c.loose[conn] = c.clock
	case http.StateHijacked, http.StateClosed:
		delete(c.loose, conn)
		delete(c.busy, conn)
		if c.from[who]--; c.from[who] <= 0 {
			delete(c.from, who)
		}
	}
	delete(c.loose, victim) // the next one takes another
	c.mu.Unlock()
	if victim != nil {
		go func() { _ = raw(victim).Close() }() // close_notify of TLS would wait for a peer that does not read
	}
}

// raw is the connection below TLS.
func raw(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}

func (c *conns) oldest(who string) net.Conn {
	var found net.Conn
	for conn, at := range c.loose {
		if (who == "" || hostOf(conn.RemoteAddr().String()) == who) && (found == nil || at < c.loose[found]) {
			found = conn
		}
	}
	return found
}
