package rtc

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// plainConn sends datagrams one by one, and counts them.
type plainConn struct {
	*net.UDPConn
	sent int
}

func (c *plainConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.ReadFromUDPAddrPort(b)
}

func (c *plainConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.sent++
	return c.WriteToUDPAddrPort(b, to)
}

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func datagram(first byte, size, n int) []byte {
	return append([]byte{first, byte(n)}, bytes.Repeat([]byte{byte(n)}, size-2)...)
}

func TestTrainDeliversEachDatagramAsItWas(t *testing.T) {
	raw, to := socket(t), socket(t)
	plain := &plainConn{UDPConn: raw}
	tr := &train{yard: newYard()}
	c := &trainConn{PacketConn: raw, through: plain, raw: raw, train: tr}
	sizes := []int{1200, 1200, 1200, 300, 1200, 1300, 1300, 40, 41, 1200}
	for round, broken := range []bool{false, true} {
		c.cannot.Store(broken)
		plain.sent = 0
		tr.gather()
		for i, size := range sizes {
			if _, err := c.WriteToAddrPort(datagram(0x80, size, i), addrOf(to)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.WriteToAddrPort(datagram(1, 100, 200), addrOf(to)); err != nil { // STUN waits for nobody
			t.Fatal(err)
		}
		tr.leave()
		var got [][]byte
		for range len(sizes) + 1 {
			b := make([]byte, 2048)
			_ = to.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := to.Read(b)
			if err != nil {
				t.Fatalf("round %d: %d datagrams came: %v", round, len(got), err)
			}
			if b[0] != 1 {
				got = append(got, b[:n])
			}
		}
		for i, size := range sizes {
			if !bytes.Equal(got[i], datagram(0x80, size, i)) {
				t.Fatalf("round %d: datagram %d came as %d bytes of %d, %d", round, i, len(got[i]), got[i][1], got[i][2])
			}
		}
		// 1200+1200+1200+300 | 1200 | 1300+1300+40 | 41 | 1200: two trains, and the message of ICE.
		want := 4
		if c.cannot.Load() {
			want = len(sizes) + 1
		}
		if plain.sent != want {
			t.Errorf("round %d: %d datagrams went out by themselves, not %d", round, plain.sent, want)
		}
	}
	if tr.buf != nil || tr.open {
		t.Error("a leg keeps a buffer while it sends nothing")
	}
}

// A kernel or an interface that does not cut is noticed, and nothing is lost by it.
func TestTrainThatTheKernelRefusesIsSentOneByOne(t *testing.T) {
	raw, to := socket(t), socket(t)
	plain := &plainConn{UDPConn: raw}
	tr := &train{yard: newYard()}
	c := &trainConn{PacketConn: raw, through: plain, raw: socket(t), train: tr}
	_ = c.raw.Close()
	tr.gather()
	for i := range 5 {
		_, _ = c.WriteToAddrPort(datagram(0x80, 500, i), addrOf(to))
	}
	tr.leave()
	if !c.cannot.Load() || plain.sent != 5 {
		t.Fatalf("noticed: %v, %d went out one by one", c.cannot.Load(), plain.sent)
	}
}

// writer is where pion takes over.
type writer struct{ n, bytes int }

func (w *writer) WriteRTP(h *rtp.Header, p []byte) (int, error) {
	w.n++
	w.bytes += len(p) + h.MarshalSize()
	return len(p), nil
}

func (w *writer) Write(b []byte) (int, error) { return len(b), nil }

func TestSendingAllocatesNothing(t *testing.T) {
	w := &writer{}
	h264 := codecTable()[4]
	tr := newTrack("video", "s")
	tr.out, tr.codecs, tr.reported = w, []webrtc.RTPCodecParameters{h264}, time.Now().Add(time.Hour)
	tr.allow(true)
	o := &outlet{leg: &Leg{out: &train{yard: newYard()}}, video: outTrack{track: tr, codec: profiles.Codec{Name: "H264", ClockRate: 90000}}}
	b := sessions.Batch{Kind: "video", Live: true, Packets: make([]rtp.Packet, 20)}
	for i := range b.Packets {
		b.Packets[i] = rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i)}, Payload: make([]byte, 1180)}
	}
	if a := testing.AllocsPerRun(100, func() { o.WriteRTP(b) }); a > 0 {
		t.Errorf("%v allocations for %d packets", a, len(b.Packets))
	}
	if w.n != 101*20 {
		t.Errorf("%d packets went out", w.n)
	}
}

// What a receiver asks for again after the codec changed would leave as another packet under
// a number that was used, which breaks SRTP.
func TestNothingIsSentAgainUnderAnotherPayloadType(t *testing.T) {
	w := &writer{}
	table := codecTable()
	tr := newTrack("video", "s")
	tr.out, tr.codecs = w, []webrtc.RTPCodecParameters{table[4]}
	tr.allow(true)
	h264 := profiles.Codec{Name: "H264", ClockRate: 90000}
	packet := func(n uint16, again bool) sessions.Batch {
		return sessions.Batch{Kind: "video", Again: again, Packets: []rtp.Packet{{Header: rtp.Header{SequenceNumber: n}, Payload: []byte{1}}}}
	}
	tr.write(h264, packet(10, false))
	tr.write(h264, packet(10, true))
	if w.n != 2 {
		t.Fatalf("%d packets went out, not 2", w.n)
	}
	other := table[4]
	other.PayloadType = 109
	tr.codecs = []webrtc.RTPCodecParameters{other}
	tr.write(h264, packet(11, false))
	tr.write(h264, packet(10, true))
	tr.write(h264, packet(11, true))
	if w.n != 4 {
		t.Fatalf("%d packets went out, not 4: the first one again, as another", w.n)
	}
}
