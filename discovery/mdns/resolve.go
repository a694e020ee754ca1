package mdns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ErrNoHost means that nobody on the network answered for a host name in time.
var ErrNoHost = errors.New("no device on this network answers for that name")

// maxWaiters bounds the names being looked up: a hostile session description may hold
// many .local candidates.
const maxWaiters = 64

// hostWait is one host name that callers wait for.
type hostWait struct{ callers []chan []netip.Addr }

// ResolveHost looks up a host name that ends in .local, as in ICE candidates of browsers
// (draft-ietf-mmusic-mdns-ice-candidates), until ctx ends. Link-local IPv6 addresses have
// their zone. It may be called from any goroutine while Run runs; before and after that
// it waits for ctx, or fails.
func (e *Engine) ResolveHost(ctx context.Context, name string) ([]netip.Addr, error) {
	host := lower(dns.Fqdn(strings.TrimSpace(name)))
	if _, ok := dns.IsDomainName(host); !ok || !strings.HasSuffix(host, ".local.") {
		return nil, fmt.Errorf("%q is not a name under .local", name)
	}
	answer := make(chan []netip.Addr, 1)
	refused := make(chan struct{})
	e.loop.Do(func() {
		if !e.lookUp(host, answer) {
			close(refused)
		}
	})
	defer e.loop.Do(func() { e.forget(host, answer) })
	select {
	case addrs := <-answer:
		return addrs, nil
	case <-refused:
		return nil, fmt.Errorf("%s: too many names are being looked up: %w", name, ErrNoHost)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", name, errors.Join(ErrNoHost, ctx.Err()))
	case <-e.loop.Done():
		return nil, fmt.Errorf("%s: discovery has stopped: %w", name, ErrNoHost)
	}
}

func (e *Engine) lookUp(host string, answer chan []netip.Addr) bool {
	if addrs := e.ownHost(host); len(addrs) > 0 {
		answer <- addrs
		return true
	}
	if addrs := e.addrsOf(host, time.Now()); len(addrs) > 0 {
		answer <- addrs
		return true
	}
	w := e.waiters[host]
	if w != nil {
		w.callers = append(w.callers, answer)
		return true
	}
	if len(e.waiters) >= maxWaiters {
		return false
	}
	w = &hostWait{callers: []chan []netip.Addr{answer}}
	e.waiters[host] = w
	e.askHost(host, w, firstWait)
	return true
}

// askHost asks for both families at once and again after 1, 2, 4 ... s.
func (e *Engine) askHost(host string, w *hostWait, wait time.Duration) {
	if e.waiters[host] != w {
		return
	}
	for _, l := range e.loop.Links {
		e.ask(l, []dns.Question{question(host, dns.TypeA), question(host, dns.TypeAAAA)})
	}
	e.loop.After(wait, func() { e.askHost(host, w, min(2*wait, lastWait)) })
}

func (e *Engine) ownHost(host string) []netip.Addr {
	var out []netip.Addr
	for _, r := range e.regs {
		if lower(r.hostName()) != host || len(out) > 0 {
			continue
		}
		for _, l := range e.loop.Links {
			for _, rr := range r.addrs(l) {
				a, _ := rrAddr(rr)
				if a.Is6() && a.IsLinkLocalUnicast() {
					a = a.WithZone(l.Name)
				}
				out = append(out, a)
			}
		}
	}
	return out
}

// wakeWaiters answers those whose host is known now.
func (e *Engine) wakeWaiters() {
	now := time.Now()
	for host, w := range e.waiters {
		addrs := e.addrsOf(host, now)
		if len(addrs) == 0 {
			continue
		}
		delete(e.waiters, host)
		for _, c := range w.callers {
			c <- addrs
		}
	}
}

func (e *Engine) forget(host string, answer chan []netip.Addr) {
	w := e.waiters[host]
	if w == nil {
		return
	}
	for i, c := range w.callers {
		if c == answer {
			w.callers = append(w.callers[:i], w.callers[i+1:]...)
			break
		}
	}
	if len(w.callers) == 0 {
		delete(e.waiters, host)
	}
}
