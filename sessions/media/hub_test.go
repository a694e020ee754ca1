package media

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
)

// outlet takes every packet.
type outlet func(kind string, p *rtp.Packet)

func (outlet) Takes(string) bool { return true }

func (o outlet) WriteRTP(b sessions.Batch) {
	for _, p := range b.Packets {
		o(b.Kind, &p)
	}
}

// scope is a viewer that notes what it gets and when.
type scope struct {
	t       *testing.T
	start   time.Time
	mu      sync.Mutex // needed only where the viewer goes on by itself, by its pace
	got     []rtp.Packet
	at      []time.Duration
	batches []sessions.Batch
	closed  atomic.Bool
	block   chan struct{} // not nil: delivery waits for it
}

func newScope(t *testing.T) *scope { return &scope{t: t, start: time.Now()} }

func (s *scope) Takes(string) bool { return !s.closed.Load() }

func (s *scope) WriteRTP(b sessions.Batch) {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, sessions.Batch{Kind: b.Kind, Live: b.Live, Again: b.Again, Packets: slices.Clone(b.Packets)})
	for _, p := range b.Packets {
		s.got, s.at = append(s.got, p), append(s.at, time.Since(s.start))
	}
}

// payload numbers of what came.
func (s *scope) ids() (out []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.got {
		out = append(out, int(p.Payload[0])<<8|int(p.Payload[1]))
	}
	return out
}

func (s *scope) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got, s.at, s.batches = nil, nil, nil
}

// continuous checks that no sequence number is missing or repeated and stamps never fall.
func (s *scope) continuous(kind string) {
	s.t.Helper()
	for i := 1; i < len(s.got); i++ {
		a, b := s.got[i-1], s.got[i]
		if b.SequenceNumber != a.SequenceNumber+1 || int32(b.Timestamp-a.Timestamp) < 0 {
			s.t.Fatalf("%s: packet %d: sequence %d to %d, stamp %d to %d", kind, i, a.SequenceNumber, b.SequenceNumber, a.Timestamp, b.Timestamp)
		}
	}
}

// camera publishes frames of three packets at 30 Hz, the first of each tenth a key frame.
type camera struct {
	h      *Hub
	seq    uint16
	n      int // packets
	frames int
	gop    int
}

const perFrame = 3

func newCamera() *camera { return &camera{h: NewHub(), seq: 65500, gop: 10} }

func (c *camera) packet(marker, key bool) {
	p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: c.seq, Timestamp: uint32(c.frames) * 3000, Marker: marker}, Payload: []byte{byte(c.n >> 8), byte(c.n), 0}}
	c.seq++
	c.n++
	c.h.Publish("video", p, key)
}

func (c *camera) frame() {
	for i := range perFrame {
		c.packet(i == perFrame-1, i == 0 && c.frames%c.gop == 0)
	}
	c.frames++
}

// play publishes frames in time.
func (c *camera) play(frames int) {
	for range frames {
		c.frame()
		time.Sleep(time.Second / 30)
	}
	synctest.Wait()
}

func upTo(a, b int) (out []int) {
	for i := a; i < b; i++ {
		out = append(out, i)
	}
	return out
}

func TestNewViewerStartsWithTheKeyFrameAndIsLiveSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		c.gop = 60
		c.play(115) // 55 frames since the key frame
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		synctest.Wait()
		if got := s.ids(); !slices.Equal(got, upTo(60*perFrame, 61*perFrame)) {
			t.Fatalf("at once came %v", got)
		}
		time.Sleep(catchUp)
		synctest.Wait()
		if got := s.ids(); !slices.Equal(got, upTo(60*perFrame, 115*perFrame)) {
			t.Fatalf("after %v came %v", catchUp, got)
		}
		if s.got[0].Timestamp != 60*3000 {
			t.Errorf("the past has stamp %d, not its own", s.got[0].Timestamp)
		}
		for i := perFrame; i < len(s.at); i += perFrame {
			if gap := s.at[i] - s.at[i-perFrame]; gap < time.Millisecond || gap > pace {
				t.Fatalf("frames of the past are %v apart", gap)
			}
		}
		if s.batches[0].Live || s.batches[len(s.batches)-1].Live {
			t.Error("the past is said to be live")
		}
		s.forget()
		before := time.Since(s.start)
		c.frame()
		synctest.Wait()
		if len(s.batches) != 1 || !s.batches[0].Live || s.at[0] != before {
			t.Errorf("a live frame came as %+v at %v, was sent at %v", s.batches, s.at, before)
		}
	})
}

func TestNumbersAreTheViewersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		c.play(15)
		var all []*scope
		for range 3 {
			s := newScope(t)
			v := c.h.Subscribe(s, &sessions.Position{})
			defer v.Cancel()
			all = append(all, s)
			c.play(8)
		}
		for _, s := range all {
			if s.continuous("video"); s.got[0].SequenceNumber > 1<<15 {
				t.Errorf("numbers start at %d", s.got[0].SequenceNumber)
			}
		}
		if all[0].got[0].SequenceNumber == all[1].got[0].SequenceNumber && all[1].got[0].SequenceNumber == all[2].got[0].SequenceNumber {
			t.Error("all viewers have the same numbers")
		}
	})
}

func TestSlowViewerIsSkippedToTheNextKeyFrameAndDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		c.play(1)
		slow, fast := newScope(t), newScope(t)
		slow.block = make(chan struct{})
		sv, fv := c.h.Subscribe(slow, &sessions.Position{}), c.h.Subscribe(fast, &sessions.Position{})
		defer fv.Cancel()
		c.play(75) // 2.5 s
		if n := len(fast.got); n != 76*perFrame {
			t.Fatalf("the fast viewer has %d packets, not %d", n, 76*perFrame)
		}
		if fv.Skipped() != 0 {
			t.Error("the fast viewer was skipped")
		}
		close(slow.block)
		c.play(15) // frames 76 to 90: the next key frame is 80
		ids := slow.ids()
		i := slices.Index(ids, 80*perFrame)
		if i < 0 || !slices.Equal(ids[i:], upTo(80*perFrame, 91*perFrame)) {
			t.Fatalf("the slow viewer got %v", ids)
		}
		slow.continuous("video")
		if n := int(sv.Skipped()); n == 0 || n+len(ids) != 91*perFrame {
			t.Errorf("%d packets are told as skipped, %d came of %d", n, len(ids), 91*perFrame)
		}
		sv.Cancel()
		if len(c.h.viewers) != 1 {
			t.Error("a cancelled viewer is left")
		}
	})
}

func TestKeyFrameIsGivenAgainFromTheRingAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		c.play(28)
		s.forget()
		for range 5 {
			v.RequestKeyFrame()
			time.Sleep(30 * time.Millisecond)
		}
		synctest.Wait()
		if got := s.ids(); !slices.Equal(got, upTo(20*perFrame, 28*perFrame)) {
			t.Fatalf("came %v", got)
		}
		c.play(4)
		s.continuous("video") // stamps grow though the frames were seen before
		last := s.got[len(s.got)-1]
		if last.Timestamp != 31*3000 {
			t.Errorf("the live picture has stamp %d", last.Timestamp)
		}
		if d := s.got[8*perFrame-1].Timestamp; d >= 28*3000 {
			t.Errorf("the past reaches to stamp %d", d)
		}
		time.Sleep(refreshEvery)
		s.forget()
		v.RequestKeyFrame()
		synctest.Wait()
		if len(s.got) == 0 || s.ids()[0] != 30*perFrame {
			t.Errorf("a later request gave %v", s.ids())
		}
	})
}

func TestLostPacketsAreSentAgainExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		c.play(28)
		v.RequestKeyFrame() // another stretch of numbers, with stamps made for it
		c.play(3)
		first := slices.Clone(s.got)
		s.forget()
		lost := []uint16{first[2].SequenceNumber, first[84].SequenceNumber, first[90].SequenceNumber, first[len(first)-1].SequenceNumber}
		v.Resend(append(slices.Clone(lost), first[len(first)-1].SequenceNumber+1, first[0].SequenceNumber-1))
		synctest.Wait()
		if len(s.got) != len(lost) || !s.batches[0].Again || s.batches[0].Live {
			t.Fatalf("%d packets came again: %+v", len(s.got), s.batches)
		}
		for _, p := range s.got {
			i := slices.IndexFunc(first, func(q rtp.Packet) bool { return q.SequenceNumber == p.SequenceNumber })
			q := first[i]
			if p.Timestamp != q.Timestamp || p.Marker != q.Marker || !slices.Equal(p.Payload, q.Payload) {
				t.Errorf("%d came again as another packet: SRTP would be broken\n%+v\n%+v", p.SequenceNumber, p, q)
			}
		}
		s.forget()
		for range 40 { // 4,000 requests in a second
			v.Resend(slices.Repeat(lost, 25))
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(s.got); n == 0 || n > repairs {
			t.Errorf("%d packets were sent again in a second", n)
		}
	})
}

func TestClosedGateOpensWithAKeyFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		c.play(12)
		s.closed.Store(true)
		c.play(15)
		n := len(s.got)
		s.closed.Store(false)
		c.play(6)
		if got := s.ids()[n:]; got[0] != 20*perFrame || n > 13*perFrame {
			t.Fatalf("the picture goes on with %v", got)
		}
		s.continuous("video")
		if v.Skipped() != 0 {
			t.Error("what was not to be sent is told as skipped")
		}
	})
}

func TestSoundIsLiveWhilePictureCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		c.gop = 100
		sound := func(n int) {
			c.h.Publish("audio", &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(n), Timestamp: uint32(n) * 960}, Payload: []byte{0, 0}}, false)
		}
		for n := range 40 {
			sound(n)
		}
		c.play(50)
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		synctest.Wait()
		for n := range 3 {
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			s.forget()
			sound(40 + n)
			time.Sleep(pace)
			synctest.Wait()
			s.mu.Lock()
			i := slices.IndexFunc(s.batches, func(b sessions.Batch) bool { return b.Kind == "audio" })
			if i < 0 || s.batches[i].Packets[0].Timestamp != uint32(40+n)*960 || len(s.batches[i].Packets) != 1 {
				t.Errorf("sound %d did not come through the past of the picture: %+v", n, s.batches)
			}
			s.mu.Unlock()
		}
	})
}

func TestHolesStayHolesAndNoNumberIsUsedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCamera()
		s := newScope(t)
		v := c.h.Subscribe(s, &sessions.Position{})
		defer v.Cancel()
		c.play(3)
		c.seq++ // lost before us
		c.play(2)
		late := c.seq - perFrame - 1
		for range 2 { // the same packet twice
			c.h.Publish("video", &rtp.Packet{Header: rtp.Header{SequenceNumber: late, Timestamp: 4 * 3000, Marker: true}, Payload: []byte{9, 9}}, false)
		}
		c.seq = 20000 // the source starts anew
		c.play(2)
		synctest.Wait()
		seen := map[uint16]int{}
		for _, p := range s.got {
			seen[p.SequenceNumber]++
		}
		for n, times := range seen {
			if times > 1 {
				t.Errorf("number %d was used %d times", n, times)
			}
		}
		base := s.got[0].SequenceNumber
		if seen[base+3*perFrame] != 0 {
			t.Error("the hole was closed: nobody would know that a frame is broken")
		}
		if last := s.got[len(s.got)-1].SequenceNumber - base; last != 7*perFrame+1 {
			t.Errorf("after a new start the numbers are at %d", last)
		}
	})
}

func TestRingIsBounded(t *testing.T) {
	r := newRing(videoSlots)
	big := make([]byte, 60_000)
	for i := range 3 * videoSlots {
		r.push(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i)}, Payload: big}, i == 0, time.Time{})
		if r.bytes > ringBytes || r.head-r.tail > videoSlots {
			t.Fatalf("%d bytes in %d packets", r.bytes, r.head-r.tail)
		}
	}
	if r.keyed {
		t.Error("a key frame that is gone is given to new viewers")
	}
	r = newRing(videoSlots)
	for i := range 2 * videoSlots {
		r.push(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i)}, Payload: big[:1]}, i == 0, time.Time{})
		if r.keyed && r.head-r.key > maxGOP {
			t.Fatal("a group of pictures grows without bound")
		}
	}
	if r.head-r.tail != videoSlots {
		t.Errorf("%d packets are kept", r.head-r.tail)
	}
}

// Nothing is allocated to hand a packet to a viewer.
func TestForwardingAllocatesNothing(t *testing.T) {
	c := newCamera()
	frame := make([]*rtp.Packet, 8)
	var got atomic.Int64
	for range 10 {
		v := c.h.Subscribe(counting{&got}, &sessions.Position{})
		defer v.Cancel()
	}
	n := uint32(0)
	for i := range frame {
		frame[i] = &rtp.Packet{Header: rtp.Header{Version: 2}, Payload: make([]byte, 1180)}
	}
	send := func() {
		n++
		want := got.Load() + 10*int64(len(frame))
		for i := range frame {
			p := frame[i]
			p.SequenceNumber++ // the viewers of this test look at none of the old ones again
			if n == 1 {
				p.SequenceNumber = uint16(i + 1)
			} else {
				p.SequenceNumber += uint16(len(frame)) - 1
			}
			p.Timestamp, p.Marker = n*3000, i == len(frame)-1
			c.h.Publish("video", p, i == 0)
		}
		for got.Load() < want {
			time.Sleep(50 * time.Microsecond)
		}
	}
	send()
	if a := testing.AllocsPerRun(200, send); a > 0 {
		t.Errorf("%v allocations for a frame of %d packets to 10 viewers", a, len(frame))
	}
}

type counting struct{ n *atomic.Int64 }

func (counting) Takes(kind string) bool { return true }

func (c counting) WriteRTP(b sessions.Batch) { c.n.Add(int64(len(b.Packets))) }

// A packet that comes after a new stretch of numbers began belongs to the old one: its
// number is somebody else's now.
func TestNumberOfAnOldStretchIsNotGivenAgain(t *testing.T) {
	n := newNumbering(0)
	n.restart(100, false)
	used := map[uint64]uint16{}
	give := func(source uint16) bool {
		got, ok := n.of(source)
		if before, twice := used[got]; ok && twice {
			t.Errorf("packets %d and %d have the number %d", before, source, got)
		}
		used[got] = source
		return ok
	}
	for s := range uint16(5) {
		give(100 + s)
	}
	n.restart(110, true)
	give(110)
	if give(108) || give(109) {
		t.Error("a late packet got a number of the new stretch")
	}
	if got := n.heard(uint16(n.last)); got != n.last {
		t.Errorf("heard %d, not %d", got, n.last)
	}
}

// A leg whose source was closed and opened anew goes on in its numbers and its time; one that
// comes back to the same source keeps its time to the tick.
func TestLegGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at sessions.Position
		s := newScope(t)
		c := newCamera()
		watch := func(frames int) {
			v := c.h.Subscribe(s, &at)
			c.play(frames)
			time.Sleep(catchUp)
			v.Cancel()
		}
		watch(12)
		c.play(20)
		watch(12)
		last := s.got[len(s.got)-1]
		if want := uint32(c.frames-1) * 3000; last.Timestamp != want {
			t.Errorf("back at the same source the stamp is %d, not %d", last.Timestamp, want)
		}
		time.Sleep(3 * time.Second)
		began := time.Now()
		c = newCamera() // another time line
		c.frames = 90_000
		watch(12)
		s.continuous("video")
		due := last.Timestamp + uint32((3*time.Second+catchUp).Seconds()*90_000)
		i := slices.IndexFunc(s.at, func(d time.Duration) bool { return s.start.Add(d).After(began) })
		if off := int32(s.got[i+1].Timestamp - due); off < -9000 || off > 9000 {
			t.Errorf("the new source goes on %d ticks away from where the stream is", off)
		}
	})
}
