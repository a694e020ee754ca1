package rtc

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

func counted(seqs ...uint16) *counter {
	c := &counter{}
	c.allow(true)
	for _, s := range seqs {
		c.add(&rtp.Packet{Header: rtp.Header{SequenceNumber: s}, Payload: []byte{1}}, 48000)
	}
	return c
}

func TestCounterTellsLostLateAndTwiceApart(t *testing.T) {
	for _, c := range []struct {
		what                 string
		seqs                 []uint16
		packets, late, twice uint64
		lost                 int64
	}{
		{"in order", []uint16{10, 11, 12}, 3, 0, 0, 0},
		{"one missing", []uint16{10, 12, 13}, 3, 0, 0, 1},
		{"it came late", []uint16{10, 12, 11, 13}, 4, 1, 0, 0},
		{"it came twice", []uint16{10, 11, 11, 12}, 3, 0, 1, 0},
		{"late and twice", []uint16{10, 12, 11, 11, 12}, 3, 1, 2, 0},
		{"a copy hides no loss", []uint16{10, 10, 12, 12}, 2, 0, 2, 1},
		{"the first came second", []uint16{11, 10, 12}, 3, 1, 0, 0},
		{"across the wrap", []uint16{65534, 65535, 1, 0, 2}, 5, 1, 0, 0},
		{"lost across the wrap", []uint16{65534, 1}, 2, 0, 0, 2},
		{"a new time line is no loss", []uint16{10, 11, 30000, 30001}, 4, 0, 0, 0},
		{"nor is one further back", []uint16{30000, 30001, 10, 11}, 4, 0, 0, 0},
		{"what was lost before it stays lost", []uint16{10, 12, 30000}, 3, 0, 0, 1},
	} {
		s := counted(c.seqs...).stats()
		if s.PacketsReceived != c.packets || s.Late != c.late || s.Duplicates != c.twice || s.Lost != c.lost {
			t.Errorf("%s: %+v", c.what, s)
		}
	}
}

// What a random network does is told exactly, as long as copies come within the window.
func TestCounterAgainstARandomNetwork(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var sent []uint16
		lost, twice, start := int64(0), uint64(0), uint16(r.Uint32())
		const n = 5000
		for i := range n {
			seq := start + uint16(i)
			if i > 0 && i < n-1 && r.Float64() < 0.05 {
				lost++
				continue
			}
			sent = append(sent, seq)
			if r.Float64() < 0.03 {
				twice++
				sent = append(sent, seq)
			}
		}
		for i := 20; i+20 < len(sent); i += 20 { // reordered within 20
			if r.Float64() < 0.5 {
				r.Shuffle(20, func(a, b int) { sent[i+a], sent[i+b] = sent[i+b], sent[i+a] })
			}
		}
		late, highest, seen := uint64(0), sent[0], []uint16{sent[0]}
		for _, s := range sent[1:] {
			if slices.Contains(seen[max(0, len(seen)-100):], s) {
				continue
			}
			seen = append(seen, s)
			if int16(s-highest) < 0 {
				late++
			} else {
				highest = s
			}
		}
		if got := counted(sent...).stats(); got.Lost != lost || got.Duplicates != twice || got.Late != late || got.PacketsReceived != uint64(n-lost) {
			t.Fatalf("seed %d: %+v; lost %d, twice %d, late %d", seed, got, lost, twice, late)
		}
	}
}

func TestCounterWhileTheGateIsClosed(t *testing.T) {
	c := counted(10, 12)
	c.allow(false)
	c.allow(true)
	for _, s := range []uint16{500, 501} {
		c.add(&rtp.Packet{Header: rtp.Header{SequenceNumber: s}}, 48000)
	}
	if s := c.stats(); s.Lost != 1 || s.PacketsReceived != 4 {
		t.Errorf("a pause counts: %+v", s)
	}
	c.allow(false)
	if c.add(&rtp.Packet{Header: rtp.Header{SequenceNumber: 502}}, 48000) {
		t.Error("a packet passed a closed gate")
	}
}

func TestReportsOfAPeer(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)
	var h hearsay
	h.take(rtcp.ReceptionReport{
		FractionLost: 64, TotalLost: 7, LastSequenceNumber: 1<<16 | 5, Jitter: 480,
		LastSenderReport: shortNTP(now.Add(-100 * time.Millisecond)), Delay: 65536 * 80 / 1000,
	}, 48000, now)
	got := h.get()
	if got.Reports != 1 || got.FractionLost != 0.25 || got.Lost != 7 || got.JitterMs != 10 || got.HighestSequence != 65541 {
		t.Errorf("%+v", got)
	}
	if d := got.RTT - 20*time.Millisecond; d < -time.Millisecond || d > time.Millisecond {
		t.Errorf("a round trip of %v", got.RTT)
	}
	h.take(rtcp.ReceptionReport{TotalLost: 1<<24 - 3}, 48000, now) // copies make it negative (RFC 3550 appendix A.3)
	if got = h.get(); got.Lost != -3 || got.RTT < 19*time.Millisecond {
		t.Errorf("%+v", got)
	}
}
