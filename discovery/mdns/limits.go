package mdns

import (
	"hash/maphash"
	"time"

	"github.com/hallway-home/hallway/discovery/multicast"
)

// unicastPerSecond bounds the answers to single hosts, all together: whose source was
// forged get at most this much. Few programs ask so, and seldom.
const unicastPerSecond = 50

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

func (s *echoes) sent(iface int, v6 bool, data []byte) {
	k := echo{iface, v6, maphash.Bytes(s.seed, data)}
	if x := s.out[k]; x == nil || time.Since(x.at) > echoFor {
		s.out[k] = &pendingEcho{}
	}
	s.out[k].count++
	s.out[k].at = time.Now()
}

func (s *echoes) take(iface int, p multicast.Packet) bool {
	k := echo{iface, p.From.Addr().Unmap().Is6(), maphash.Bytes(s.seed, p.Data)}
	x := s.out[k]
	if x == nil || time.Since(x.at) > echoFor {
		return false
	}
	if x.count--; x.count == 0 {
		delete(s.out, k)
	}
	return true
}
