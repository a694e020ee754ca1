package mdns

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// perSecond and burst bound what one source can make this node parse. A laptop that
	// wakes up sends about 30 packets at once; floods send thousands (acceptance A33).
	perSecond, burst = 100, 200
	// unicastPerSecond bounds the answers to single hosts, all together: whose source was
	// forged get at most this much. Few programs ask so, and seldom.
	unicastPerSecond = 50
	// maxSources bounds the table; further sources share one allowance, so that a flood
	// from invented addresses cannot displace those already known.
	maxSources = 512
	// sourceIdle: a source silent for this long has its full allowance again.
	sourceIdle = 10 * time.Second
)

// limits is a token bucket for each source address.
type limits struct {
	buckets map[netip.Addr]*bucket
	rest    bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimits() limits {
	return limits{buckets: map[netip.Addr]*bucket{}, rest: bucket{tokens: burst}}
}

func (l *limits) allow(src netip.Addr, now time.Time) bool {
	b, ok := l.buckets[src]
	if !ok {
		b = &l.rest
		if len(l.buckets) < maxSources {
			b = &bucket{tokens: burst, at: now}
			l.buckets[src] = b
		}
	}
	return b.take(perSecond, burst, now)
}

// take takes one token, if there is one.
func (b *bucket) take(perSecond, burst float64, now time.Time) bool {
	b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (l *limits) prune(now time.Time) {
	for src, b := range l.buckets {
		if now.Sub(b.at) > sourceIdle {
			delete(l.buckets, src)
		}
	}
}

// echoes knows our own multicasts when the system loops them back. Each is taken once:
// an equal packet of another program on this machine still counts, whichever comes first.
type echoes struct {
	seed maphash.Seed
	out  map[echo]*pendingEcho
}

type echo struct {
	iface int
	v6    bool
	sum   uint64
}

type pendingEcho struct {
	count int
	at    time.Time
}

// echoFor: loop-back takes microseconds; what has not come by then was not sent.
const echoFor = 2 * time.Second

func newEchoes() echoes { return echoes{seed: maphash.MakeSeed(), out: map[echo]*pendingEcho{}} }

func (s *echoes) sent(iface int, v6 bool, data []byte, now time.Time) {
	k := echo{iface, v6, maphash.Bytes(s.seed, data)}
	if s.out[k] == nil {
		s.out[k] = &pendingEcho{}
	}
	s.out[k].count++
	s.out[k].at = now
}

func (s *echoes) take(iface int, p packet) bool {
	k := echo{iface, p.src.Addr().Unmap().Is6(), maphash.Bytes(s.seed, p.data)}
	x := s.out[k]
	if x == nil {
		return false
	}
	if x.count--; x.count == 0 {
		delete(s.out, k)
	}
	return true
}

func (s *echoes) prune(now time.Time) {
	for k, x := range s.out {
		if now.Sub(x.at) > echoFor {
			delete(s.out, k)
		}
	}
}
