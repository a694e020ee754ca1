package rtsp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// sent is what a repacker publishes.
type sent struct {
	p   rtp.Packet
	key bool
}

func repackerOf(kind, name string, rate uint32) (*repacker, *[]sent) {
	var out []sent
	o := newRepacker(sessions.Track{Kind: kind, Codec: profiles.Codec{Name: name, ClockRate: rate}}, func(_ string, p *rtp.Packet, key bool, _ time.Time) { out = append(out, sent{*p, key}) })
	return o, &out
}

func unit(header []byte, n int) []byte {
	b := append([]byte(nil), header...)
	for i := range n {
		b = append(b, byte(i*7))
	}
	return b
}

func aggregated(header []byte, units ...[]byte) []byte {
	b := append([]byte(nil), header...)
	for _, u := range units {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(u))), u...)
	}
	return b
}

// Packets of any size leave below the MTU, and what comes together at the other end is what
// the camera meant; a key frame has its parameter sets before it, once.
func TestOutletCutsPictures(t *testing.T) {
	sps, pps, idr := unit([]byte{0x67}, 20), unit([]byte{0x68}, 5), unit([]byte{0x65}, 30000)
	big := append([]byte{0x7c, 0x85}, idr[1:]...) // FU-A, first fragment of one that goes on
	for name, c := range map[string]struct {
		in   [][]byte
		want [][]byte // NAL units
		keys int
	}{
		"small":           {[][]byte{unit([]byte{0x41}, 50)}, [][]byte{unit([]byte{0x41}, 50)}, 0},
		"one large unit":  {[][]byte{idr}, [][]byte{sps, pps, idr}, 1},
		"sets of its own": {[][]byte{sps, pps, idr}, [][]byte{sps, pps, idr}, 1},
		"all in one":      {[][]byte{aggregated([]byte{24}, sps, pps, unit([]byte{0x65}, 2000))}, [][]byte{sps, pps, unit([]byte{0x65}, 2000)}, 1},
		"large fragments": {[][]byte{big, append([]byte{0x7c, 0x45}, unit(nil, 3000)...)}, [][]byte{sps, pps, append(append([]byte{}, idr...), unit(nil, 3000)...)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o, out := repackerOf("video", "H264", 90000)
			o.begin([][]byte{sps, pps})
			for i, b := range c.in {
				o.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: 7, Marker: i == len(c.in)-1}, Payload: b}, time.Unix(1, 0), time.Time{}) //nolint:gosec // few
			}
			var depacket codecs.H264Packet
			depacket.IsAVC = true
			var got []byte
			keys := 0
			for i, s := range *out {
				if len(s.p.Payload) > media.MTU || s.p.SequenceNumber != (*out)[0].p.SequenceNumber+uint16(i) || s.p.Timestamp != 7 || s.p.Marker != (i == len(*out)-1) { //nolint:gosec // few
					t.Fatalf("packet %d: %d bytes, number %d, stamp %d, marker %v", i, len(s.p.Payload), s.p.SequenceNumber, s.p.Timestamp, s.p.Marker)
				}
				if s.key {
					keys++
				}
				b, err := depacket.Unmarshal(s.p.Payload)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b...)
			}
			var want []byte
			for _, u := range c.want {
				want = append(binary.BigEndian.AppendUint32(want, uint32(len(u))), u...)
			}
			if !bytes.Equal(got, want) || keys != c.keys || c.keys == 1 && !(*out)[0].key {
				t.Errorf("%d bytes in %d packets with %d key frames, want %d bytes", len(got), len(*out), keys, len(want))
			}
		})
	}
}

// fragmentsOf cuts a NAL unit of H.264 as a camera does.
func fragmentsOf(u []byte, size int) (out [][]byte) {
	fu := u[0]&0x1f | 0x80
	for rest := u[1:]; len(rest) > 0; fu &^= 0x80 {
		n := min(size-2, len(rest))
		if n == len(rest) {
			fu |= 0x40
		}
		out, rest = append(out, append([]byte{u[0]&0xe0 | 28, fu}, rest[:n]...)), rest[n:]
	}
	return out
}

// A camera's fragments are a little larger than ours. What leaves is full packets all the same,
// in one numbering, and nothing waits for the next picture; a fragment that the camera's network
// lost is a hole, and all that came is sent on.
func TestFragmentsOfACameraLeaveInFullPackets(t *testing.T) {
	for _, size := range []int{media.MTU + 1, 1400, 1459, 1460, 3000, 7000} {
		for lost := -1; lost < 5; lost++ {
			o, out := repackerOf("video", "H264", 90000)
			p := unit([]byte{0x41}, 7458)
			number, want := uint16(65530), 0
			for picture := range uint32(3) {
				all := fragmentsOf(p, size)
				for i, b := range all {
					number++
					if picture == 1 && i == lost {
						continue
					}
					want += len(b) - 2
					o.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: number, Timestamp: picture * 3000, Marker: i == len(all)-1}, Payload: b}, time.Unix(1, 0), time.Time{})
				}
				if marked := (*out)[len(*out)-1].p; marked.Timestamp != picture*3000 || !marked.Marker && lost != len(all)-1 {
					t.Fatalf("%d: picture %d is not complete: %+v", size, picture, marked.Header)
				}
			}
			got, holes, packets := 0, 0, *out
			for i, s := range packets {
				got += len(s.p.Payload) - 2
				if i > 0 {
					holes += int(s.p.SequenceNumber - packets[i-1].p.SequenceNumber - 1)
				}
				if full := len(s.p.Payload) == media.MTU; !full && lost < 0 && !s.p.Marker {
					t.Errorf("%d: packet %d of %d has %d bytes", size, i, len(packets), len(s.p.Payload))
				}
			}
			wantHoles := 0
			if lost >= 0 && lost < len(fragmentsOf(p, size)) {
				wantHoles = 1
			}
			if got != want || holes != wantHoles {
				t.Errorf("fragments of %d, lost %d: %d bytes of %d, %d holes", size, lost, got, want, holes)
			}
			if lost < 0 {
				whole := append([]byte(nil), p[0])
				for _, s := range packets[:len(packets)/3] {
					whole = append(whole, s.p.Payload[2:]...)
				}
				if !bytes.Equal(whole, p) || packets[0].p.Payload[1] != 0x81 || packets[len(packets)/3-1].p.Payload[1] != 0x41 {
					t.Errorf("fragments of %d: the picture is not what it was", size)
				}
			}
		}
	}
}

// H.265 has headers of two bytes and three parameter sets.
func TestOutletKnowsH265(t *testing.T) {
	vps, sps, pps, idr := unit([]byte{64, 1}, 9), unit([]byte{66, 1}, 9), unit([]byte{68, 1}, 9), unit([]byte{38, 1}, 5000)
	o, out := repackerOf("video", "H265", 90000)
	o.begin([][]byte{vps, sps, pps})
	o.write(&rtp.Packet{Payload: idr}, time.Unix(1, 0), time.Time{})
	if len(*out) != 8 || !(*out)[0].key || !bytes.Equal((*out)[2].p.Payload, pps) {
		t.Fatalf("%d packets", len(*out))
	}
	whole := append([]byte(nil), idr[:2]...)
	for i, s := range (*out)[3:] {
		b := s.p.Payload
		if b[0] != 98 || b[1] != 1 || b[2]&0x3f != 19 || b[2]&0x80 != 0 != (i == 0) || b[2]&0x40 != 0 != (i == 4) {
			t.Errorf("fragment %d begins with %x", i, b[:3])
		}
		whole = append(whole, b[3:]...)
	}
	if !bytes.Equal(whole, idr) {
		t.Error("the picture is not what it was")
	}
}

// Sound in large packets is cut, and each part says when it is to be heard.
func TestOutletCutsSound(t *testing.T) {
	o, out := repackerOf("audio", "PCMU", 8000)
	o.write(&rtp.Packet{Header: rtp.Header{Timestamp: 100}, Payload: make([]byte, 2*media.MTU+10)}, time.Unix(1, 0), time.Time{})
	o.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: 1, Timestamp: 100 + 2*media.MTU + 10}, Payload: make([]byte, 160)}, time.Unix(1, 0), time.Time{})
	if len(*out) != 4 {
		t.Fatalf("%d packets", len(*out))
	}
	at := uint32(100)
	for i, s := range *out {
		if s.p.Timestamp != at || s.p.SequenceNumber != uint16(i) { //nolint:gosec // few
			t.Errorf("part %d at %d, number %d", i, s.p.Timestamp, s.p.SequenceNumber)
		}
		at += uint32(len(s.p.Payload)) //nolint:gosec // small
	}
}

// Whatever a camera sends: nothing above the MTU, few packets for one, numbers in order.
func FuzzRepacker(f *testing.F) {
	for _, b := range [][]byte{{0x65, 1}, {0x7c, 0x85, 1}, aggregated([]byte{24}, []byte{0x67, 1, 2}, []byte{0x68, 1, 2}), bytes.Repeat([]byte{24, 0, 3, 1, 1, 1}, 900), {98, 1, 0x93, 1}, bytes.Repeat([]byte{0x65}, 9000)} {
		f.Add(b, uint8(0))
		f.Add(b, uint8(1))
		f.Add(b, uint8(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		kinds := []struct {
			kind, name string
			rate       uint32
		}{{"video", "H264", 90000}, {"video", "H265", 90000}, {"audio", "PCMA", 8000}, {"audio", "opus", 48000}}
		k := kinds[int(which)%len(kinds)]
		o, out := repackerOf(k.kind, k.name, k.rate)
		for i := range 3 {
			if i == 2 {
				o.begin(nil)
			}
			before := len(*out)
			o.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i) * 3000}, Payload: b}, time.Unix(int64(i), 0), time.Time{}) //nolint:gosec // few
			if n := len(*out) - before; n > maxParts+3 {
				t.Fatalf("%d packets for one", n)
			}
		}
		for i, s := range *out {
			if len(s.p.Payload) == 0 || len(s.p.Payload) > max(media.MTU, maxSet) {
				t.Fatalf("a packet of %d bytes", len(s.p.Payload))
			}
			if s.p.SequenceNumber != (*out)[0].p.SequenceNumber+uint16(i) { //nolint:gosec // few
				t.Fatalf("number %d at place %d", s.p.SequenceNumber, i)
			}
		}
	})
}
