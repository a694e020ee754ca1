package rtc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// fakeEnd counts what is open, as a camera's lamp would.
type fakeEnd struct {
	open     atomic.Int32
	opened   atomic.Int32
	keyAsked atomic.Int32
	failSink error
	done     chan struct{}
	deliver  atomic.Pointer[func(string, *rtp.Packet)]
}

func newFakeEnd() *fakeEnd { return &fakeEnd{done: make(chan struct{})} }

func (f *fakeEnd) OpenSource(context.Context, []sessions.MediaState) (sessions.Source, func(), error) {
	f.open.Add(1)
	f.opened.Add(1)
	return fakeSource{f}, func() { f.open.Add(-1) }, nil
}

func (f *fakeEnd) OpenSink(context.Context, string, string, []sessions.MediaState) (sessions.Sink, error) {
	if f.failSink != nil {
		return nil, f.failSink
	}
	f.open.Add(1)
	f.opened.Add(1)
	return &fakeSink{f: f}, nil
}

type fakeSource struct{ f *fakeEnd }

func (fakeSource) Tracks() []sessions.Track {
	return []sessions.Track{{Kind: "audio", Codec: profiles.Codec{Name: "PCMU", ClockRate: 8000, Channels: 1}}, {Kind: "video", Codec: profiles.Codec{Name: "VP8", ClockRate: 90000}}}
}

func (s fakeSource) Subscribe(out sessions.Outlet, _ *sessions.Position) sessions.Subscription {
	d := func(kind string, p *rtp.Packet) {
		out.WriteRTP(sessions.Batch{Kind: kind, Packets: []rtp.Packet{*p}, Live: true, At: time.Now()})
	}
	s.f.deliver.Store(&d)
	return fakeView(s)
}

type fakeView struct{ f *fakeEnd }

func (v fakeView) RequestKeyFrame() { v.f.keyAsked.Add(1) }
func (fakeView) Resend([]uint16)    {}
func (fakeView) Skipped() uint64    { return 7 }
func (v fakeView) Cancel()          { v.f.deliver.Store(nil) }

func (s fakeSource) Done() <-chan struct{} { return s.f.done }
func (fakeSource) Err() error              { return errors.New("the camera was unplugged") }

type fakeSink struct {
	f      *fakeEnd
	got    atomic.Int32
	closed atomic.Bool
}

func (s *fakeSink) WriteRTP(string, profiles.Codec, *rtp.Packet) {
	if s.closed.Load() {
		panic("written after close")
	}
	s.got.Add(1)
}
func (s *fakeSink) WriteSenderReport(string, *rtcp.SenderReport) {}
func (s *fakeSink) NeedsKeyFrame() bool                          { return true }
func (s *fakeSink) Path() string                                 { return "" }
func (s *fakeSink) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		s.f.open.Add(-1)
	}
	return nil
}

func fakeSide(t testing.TB, cfg Config, class string) (*fakeEnd, sessions.Leg) {
	t.Helper()
	end := newFakeEnd()
	cfg.Endpoint, cfg.Interfaces = end, []string{"lo"}
	leg, err := New(cfg).NewLeg(sessions.LegConfig{CallID: "c", Remote: "r", Capabilities: caps(t, class)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = leg.Close() })
	return end, leg
}

func agreeOn(t testing.TB, a, b sessions.Leg, change func([]byte) []byte) {
	t.Helper()
	offer, err := a.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		offer = change(offer)
	}
	answer, err := b.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetAnswer(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsOpenedBeforeStartAndAllIsFreed(t *testing.T) {
	t.Parallel()
	ea, a := fakeSide(t, Config{}, "tv")
	eb, b := fakeSide(t, Config{}, "panel")
	agreeOn(t, a, b, nil)
	if ea.opened.Load()+eb.opened.Load() != 0 {
		t.Fatal("camera or microphone was opened while it rang")
	}
	for _, l := range []sessions.Leg{a, b} {
		if err := l.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Start(t.Context()); err != nil || ea.opened.Load() != 2 {
		t.Fatalf("a second Start opened %d, %v", ea.opened.Load(), err)
	}
	waitFor(t, "the receiver asks the source for a key frame", func() bool {
		if d := ea.deliver.Load(); d != nil {
			(*d)("video", &rtp.Packet{Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: uint16(time.Now().UnixMilli())}, Payload: []byte{0x10, 1, 2, 3}})
		}
		return ea.keyAsked.Load() > 1
	})
	for _, l := range []sessions.Leg{a, b} {
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if n := ea.open.Load() + eb.open.Load(); n != 0 {
		t.Fatalf("%d things are still open after Close", n)
	}
}

func TestStartAfterCloseKeepsNothingOpen(t *testing.T) {
	ea, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{}, "panel")
	agreeOn(t, a, b, nil)
	_ = a.Close()
	if err := a.Start(t.Context()); !errors.Is(err, sessions.ErrMediaFailed) {
		t.Errorf("start after close: %v", err)
	}
	if n := ea.open.Load(); n != 0 {
		t.Fatalf("%d things stay open", n)
	}
}

func TestSinkThatCannotOpenEndsTheLeg(t *testing.T) {
	ea, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{}, "panel")
	ea.failSink = errors.New("no space left on device")
	agreeOn(t, a, b, nil)
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") || ea.open.Load() != 0 {
		t.Fatalf("%v, %d open", err, ea.open.Load())
	}
}

func TestFailingSourceEndsTheLeg(t *testing.T) {
	ea, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{}, "panel")
	agreeOn(t, a, b, nil)
	if err := errors.Join(a.Start(t.Context()), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	close(ea.done)
	select {
	case <-a.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the leg does not say that its camera is gone")
	}
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "unplugged") {
		t.Error(err)
	}
}

func TestRejectedPictureHasPortZeroAndSoundGoesOn(t *testing.T) {
	ea, a := fakeSide(t, Config{}, "tv")
	eb, b := fakeSide(t, Config{}, "speaker")
	offer, err := a.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(answer); !strings.Contains(s, "\r\nm=video 0 ") || !strings.Contains(s, "a=group:BUNDLE 0\r\n") {
		t.Fatalf("the picture is not rejected:\n%s", s)
	}
	if err := errors.Join(a.SetAnswer(t.Context(), answer), a.Start(t.Context()), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	seq := uint16(0)
	waitFor(t, "sound at the speaker", func() bool {
		if d := ea.deliver.Load(); d != nil {
			seq++
			(*d)("audio", &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(seq) * 160}, Payload: make([]byte, 160)})
		}
		return b.Stats().Audio.PacketsReceived > 3
	})
	if eb.keyAsked.Load() != 0 {
		t.Error("a picture was asked for")
	}
}

func TestRejectedSoundLeavesThePicture(t *testing.T) {
	_, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{}, "panel")
	b.(*Leg).cfg.Capabilities.Audio = profiles.Medium{Direction: profiles.Inactive}
	agreeOn(t, a, b, nil) // the section with the candidates is the one rejected
	if err := errors.Join(a.Start(t.Context()), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a connection by the picture's section", func() bool { return a.Stats().Local != "" && b.Stats().Local != "" })
	if m := a.Media(); m[0].Direction != profiles.Inactive || m[1].Direction != profiles.SendRecv {
		t.Errorf("%+v", m)
	}
}

func TestNamesOfCandidatesAreResolved(t *testing.T) {
	var asked atomic.Pointer[string]
	_, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{ResolveHost: func(_ context.Context, host string) ([]netip.Addr, error) {
		asked.Store(&host)
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}}, "panel")
	agreeOn(t, a, b, func(o []byte) []byte {
		return []byte(strings.ReplaceAll(strings.ReplaceAll(string(o), " 127.0.0.1 ", " 6f1c.local "), " ::1 ", " 6f1c.local "))
	})
	if err := errors.Join(a.Start(t.Context()), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a connection", func() bool { return b.Stats().Remote != "" })
	if h := asked.Load(); h == nil || *h != "6f1c.local" {
		t.Errorf("asked for %v", h)
	}
}

func TestSiftKeepsOnlySingleHosts(t *testing.T) {
	line := func(proto, addr, typ string) string {
		return "a=candidate:1 1 " + proto + " 1 " + addr + " 5000 typ " + typ
	}
	var many []string
	for i := range maxCandidates + 20 {
		many = append(many, line("udp", fmt.Sprintf("10.0.0.%d", i+1), "host"))
	}
	for name, c := range map[string]struct {
		in   []string
		kept int
	}{
		"host":        {[]string{line("udp", "192.0.2.1", "host"), line("UDP", "fd00::1", "host")}, 2},
		"multicast":   {[]string{line("udp", "224.0.0.251", "host"), line("udp", "ff02::1", "host")}, 0},
		"broadcast":   {[]string{line("udp", "255.255.255.255", "host"), line("udp", "0.0.0.0", "host")}, 0},
		"reflexive":   {[]string{line("udp", "192.0.2.1", "srflx")}, 0},
		"tcp":         {[]string{line("tcp", "192.0.2.1", "host")}, 0},
		"public name": {[]string{line("udp", "example.com", "host")}, 0},
		"short":       {[]string{"a=candidate:1 1 udp"}, 0},
		"flood":       {many, maxCandidates},
	} {
		clean, _ := sift(strings.Join(append([]string{"v=0"}, c.in...), "\r\n"))
		if n := strings.Count(clean, "a=candidate:"); n != c.kept {
			t.Errorf("%s: %d kept, want %d", name, n, c.kept)
		}
	}
}

func TestTooManySectionsAreRefused(t *testing.T) {
	_, b := fakeSide(t, Config{}, "tv")
	flood := "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", maxSections+1)
	if _, err := b.Answer(t.Context(), []byte(flood)); !errors.Is(err, sessions.ErrNoCommonCodec) {
		t.Fatal(err)
	}
}

func TestNoAddressIsOneSentence(t *testing.T) {
	leg, err := New(Config{Endpoint: newFakeEnd(), Interfaces: []string{"nosuch0"}}).NewLeg(sessions.LegConfig{Capabilities: caps(t, "tv")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leg.Close() }()
	if _, err := leg.Offer(t.Context()); err == nil || !strings.Contains(err.Error(), "no network address") {
		t.Fatal(err)
	}
}

func TestAllLegsShareOnePort(t *testing.T) {
	f := New(Config{Endpoint: newFakeEnd(), Interfaces: []string{"lo"}})
	seen := map[string]bool{}
	var legs []sessions.Leg
	for range 3 {
		l, err := f.NewLeg(sessions.LegConfig{Remote: fmt.Sprint("room-", len(legs)), Peer: devices.NodeID{byte(len(legs))}, Capabilities: caps(t, "tv")})
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, l)
		offer, err := l.Offer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(offer), "\r\n") {
			if w := strings.Fields(line); strings.HasPrefix(line, "a=candidate:") && !strings.Contains(w[4], ":") {
				seen[w[5]] = true
			}
		}
	}
	if len(seen) != 1 {
		t.Errorf("ports: %v", seen)
	}
	for _, l := range legs {
		_ = l.Close()
	}
	if f.ports[0].muxes != nil {
		t.Error("the port is open without a call")
	}
}

func BenchmarkOfferAnswer(b *testing.B) {
	fa, fb := New(Config{Endpoint: newFakeEnd(), Interfaces: []string{"lo"}}), New(Config{Endpoint: newFakeEnd(), Interfaces: []string{"lo"}})
	tv, panel := caps(b, "tv"), caps(b, "panel")
	for b.Loop() {
		x, _ := fa.NewLeg(sessions.LegConfig{Capabilities: tv})
		y, _ := fb.NewLeg(sessions.LegConfig{Capabilities: panel})
		offer, err := x.Offer(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		answer, err := y.Answer(b.Context(), offer)
		if err == nil {
			err = x.SetAnswer(b.Context(), answer)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_, _ = x.Close(), y.Close()
		b.StartTimer()
	}
}

// A side that never answers is given up after 15 s, not later: until then a person waits
// in a silent call.
func TestSilentSideIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	_, a := fakeSide(t, Config{}, "tv")
	_, b := fakeSide(t, Config{}, "panel")
	offer, err := a.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := a.SetAnswer(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Done():
		if took := time.Since(start); took < iceFailed-time.Second || !strings.Contains(a.Err().Error(), "stopped answering") {
			t.Errorf("given up after %v: %v", took, a.Err())
		}
	case <-a.Connected():
		t.Error("connected to nobody")
	case <-time.After(iceFailed + 3*time.Second):
		t.Errorf("not given up after %v", time.Since(start))
	}
}
