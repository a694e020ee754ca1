package media

import (
	"slices"
	"testing"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
)

// Whatever a source numbers, loses, repeats or starts anew, and whatever a viewer asks for:
// no number of an SSRC ever stands for two packets, since that gives the key of AES-GCM away;
// and nothing grows without bound.
func FuzzNumbersAreUsedOnce(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 9, 0, 7, 0, 3, 8, 4, 0, 0, 5, 0, 0, 6, 0, 0})
	f.Add([]byte{2, 0, 1, 0, 10, 0, 11, 0, 7, 7, 7, 9, 0, 0, 3, 0, 0, 2, 0, 7})
	f.Fuzz(func(t *testing.T, ops []byte) {
		type sent struct {
			stamp  uint32
			marker bool
			id     []byte
		}
		h, at, gate := NewHub(), &sessions.Position{}, newScope(t)
		v := h.admit(gate, at)
		used := map[uint64]sent{} // by the number that goes on past 2^16, as SRTP counts
		var recent []uint16
		take := func() {
			b, _ := v.next()
			if b.Kind == "audio" {
				return
			}
			for _, p := range b.Packets {
				number := v.video.heard(p.SequenceNumber)
				before, known := used[number]
				now := sent{p.Timestamp, p.Marker, p.Payload}
				if known && (!b.Again || before.stamp != now.stamp || before.marker != now.marker || !slices.Equal(before.id, now.id)) {
					t.Fatalf("number %d stands for %+v and for %+v (again: %v)", number, before, now, b.Again)
				}
				used[number] = now
				recent = append(recent, p.SequenceNumber)
			}
		}
		seq, stamp, id := uint16(65530), uint32(0), 0
		publish := func(key bool) {
			id++
			h.Publish("video", &rtp.Packet{Header: rtp.Header{SequenceNumber: seq, Timestamp: stamp, Marker: id%3 == 0}, Payload: []byte{byte(id), byte(id >> 8)}}, key)
		}
		for _, op := range ops[:min(len(ops), 400)] {
			switch seq++; op % 12 {
			case 0, 1:
				publish(false)
			case 2:
				stamp += 3000
				publish(true)
			case 3:
				seq += uint16(op) // lost before us
				publish(false)
			case 4:
				seq -= uint16(op % 90) // late, or twice
				publish(false)
			case 5:
				seq, stamp = uint16(op)<<8, stamp+uint32(op)<<20 // starts anew
				publish(op%2 == 0)
			case 6:
				v.refresh = true
			case 7:
				if n := len(recent); n > 0 {
					v.Resend([]uint16{recent[n-1], recent[n*int(op)/256], recent[n-1] + 1, uint16(op)})
				}
			case 8:
				gate.closed.Store(!gate.closed.Load())
			case 9: // another source for the same leg
				h = NewHub()
				v = h.admit(gate, at)
			case 10:
				v.await(h.video.head, true)
			default:
				stamp += 3000
			}
			take()
			if len(v.lost) > maxLost || h.video.head-h.video.tail > videoSlots {
				t.Fatal("something grows without bound")
			}
		}
	})
}
