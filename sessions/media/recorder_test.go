package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	quiet = slog.New(slog.DiscardHandler)
	opus  = profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	vp8   = profiles.Codec{Name: "VP8", ClockRate: 90000}
	both  = []sessions.MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.SendRecv}, {Kind: "video", Codec: "VP8", Direction: profiles.SendRecv}}
)

// vp8Frame looks like a frame of 320x180 to a recorder; n is found again in the file.
func vp8Frame(n int, key bool) []byte {
	b := []byte{1, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0}
	if key {
		b[0] = 0
	}
	return append(b, binary.BigEndian.AppendUint32(nil, uint32(n))...)
}

// stream makes packets as one sender would, starting just before both counters wrap.
type stream struct {
	codec profiles.Codec
	pack  *packer
	base  uint32
}

func newStream(c profiles.Codec, base uint32) *stream {
	p := newPacker(c)
	p.seq = 65530
	return &stream{c, p, base}
}

func (s *stream) at(t time.Duration, data []byte) []*rtp.Packet {
	ps := s.pack.pack(data, t)
	for _, p := range ps {
		p.Timestamp += s.base
	}
	return ps
}

// report is what the sender says about its clock: at t it was epoch+t.
func (s *stream) report(t time.Duration) *rtcp.SenderReport {
	const epoch = 3_900_000_000
	return &rtcp.SenderReport{
		NTPTime: uint64(epoch)<<32 + uint64(t.Seconds()*(1<<32)),
		RTPTime: s.base + uint32(t.Seconds()*float64(s.codec.ClockRate)),
	}
}

func record(t *testing.T, media []sessions.MediaState) *recorder {
	t.Helper()
	r, err := newRecorder(filepath.Join(t.TempDir(), "call.mkv"), media, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func (r *recorder) put(kind string, c profiles.Codec, ps ...*rtp.Packet) {
	for _, p := range ps {
		r.WriteRTP(kind, c, p)
	}
}

// played reads a recording back: the time of each numbered frame.
func played(t *testing.T, path string) map[string]map[int]time.Duration {
	t.Helper()
	c, err := loadClip(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[int]time.Duration{"audio": {}, "video": {}}
	for _, f := range c.frames {
		out[f.kind][int(binary.BigEndian.Uint32(f.data[len(f.data)-4:]))] = f.at
	}
	return out
}

func number(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0xfc}, uint32(n)) }

func TestRecorderAlignsBySenderReports(t *testing.T) {
	r := record(t, both)
	a, v := newStream(opus, 0xffff_f000), newStream(vp8, 0xffff_0000)
	// The picture comes 400 ms late on the wire; the reports say what belongs together.
	for ms := 0; ms < 3000; ms += 20 {
		at := time.Duration(ms) * time.Millisecond
		r.put("audio", opus, a.at(at, number(ms))...)
		if late := ms - 400; late >= 0 && late%40 == 0 {
			r.put("video", vp8, v.at(time.Duration(late)*time.Millisecond, vp8Frame(late, late%1000 == 0))...)
		}
		if ms == 1000 {
			r.WriteSenderReport("audio", a.report(at))
			r.WriteSenderReport("video", v.report(at))
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := played(t, r.Path())
	if len(got["video"]) != 65 || len(got["audio"]) != 150 {
		t.Fatalf("%d pictures, %d sounds", len(got["video"]), len(got["audio"]))
	}
	for n, at := range got["video"] {
		if d := (at - got["audio"][n]).Abs(); d > 2*time.Millisecond {
			t.Fatalf("frame %d is %v away from its sound", n, d)
		}
	}
}

func TestRecorderWithoutReportsTakesArrival(t *testing.T) {
	r := record(t, both)
	a, v := newStream(opus, 7), newStream(vp8, 9_000_000)
	for ms := 0; ms < 600; ms += 20 {
		at := time.Duration(ms) * time.Millisecond
		r.put("audio", opus, a.at(at, number(ms))...)
		if ms%40 == 0 {
			r.put("video", vp8, v.at(at, vp8Frame(ms, ms == 0))...)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := played(t, r.Path())
	if len(got["video"]) != 15 {
		t.Fatalf("%d pictures", len(got["video"]))
	}
	if d := (got["video"][400] - got["audio"][400]).Abs(); d > 60*time.Millisecond {
		t.Errorf("%v apart", d)
	}
}

func TestRecorderLeavesOutWhatBuildsOnALoss(t *testing.T) {
	r := record(t, both[1:])
	v := newStream(vp8, 0)
	for n := range 150 {
		ps := v.at(time.Duration(n)*40*time.Millisecond, vp8Frame(n, n%50 == 0))
		if n == 60 {
			continue // lost for good
		}
		if n == 90 && !r.NeedsKeyFrame() {
			t.Error("no key frame is asked for after a loss")
		}
		r.put("video", vp8, ps...)
	}
	if r.NeedsKeyFrame() {
		t.Error("a key frame is still asked for")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := played(t, r.Path())["video"]
	for n := range 150 {
		_, there := got[n]
		if want := n < 60 || n >= 100; there != want {
			t.Errorf("frame %d recorded: %v", n, there)
		}
	}
}

func TestRecorderWithSoundAloneWhenNoPictureBegins(t *testing.T) {
	r := record(t, both)
	a, v := newStream(opus, 0), newStream(vp8, 0)
	for n := range 20 {
		r.put("audio", opus, a.at(time.Duration(n)*20*time.Millisecond, number(n))...)
		r.put("video", vp8, v.at(time.Duration(n)*20*time.Millisecond, vp8Frame(n, false))...)
	}
	r.mu.Lock()
	r.write(r.began.Add(keyWait + time.Second))
	opened, waiting := r.out != nil, len(r.held)
	r.mu.Unlock()
	if !opened || waiting != 0 {
		t.Fatalf("after %v: open %v, %d held", keyWait, opened, waiting)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got := played(t, r.Path()); len(got["audio"]) != 20 || len(got["video"]) != 0 {
		t.Fatalf("%d sounds, %d pictures", len(got["audio"]), len(got["video"]))
	}
}

func TestRecorderHoldsABoundedAmount(t *testing.T) {
	r := record(t, both)
	v := newStream(vp8, 0)
	big := append(vp8Frame(0, true), make([]byte, 100_000)...)
	for n := range 400 {
		r.put("video", vp8, v.at(time.Duration(n)*time.Millisecond, big)...)
		if r.heldBytes > maxHeld+2*len(big) {
			t.Fatalf("%d bytes are held", r.heldBytes)
		}
	}
}

func TestRecordingsAreNeverOverwrittenAndEmptyOnesGo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "call.mkv")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := newRecorder(path, both, quiet)
	if err != nil || r.Path() != filepath.Join(dir, "call-2.mkv") {
		t.Fatal(r, err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(dir)
	if b, _ := os.ReadFile(path); string(b) != "precious" || len(files) != 1 {
		t.Fatalf("%q, %d files", b, len(files))
	}
	if _, err := newRecorder(filepath.Join(dir, "nowhere", "call.mkv"), both, quiet); err == nil {
		t.Error("a missing folder is no error")
	}
}

func TestFullDiskEndsTheRecordingNotTheCall(t *testing.T) {
	for _, after := range []string{"header", "cluster"} {
		r := record(t, both[:1])
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal("no /dev/full here: ", err)
		}
		a := newStream(opus, 0)
		if after == "cluster" {
			r.put("audio", opus, a.at(0, number(0))...)
			r.WriteSenderReport("audio", a.report(0))
			_ = r.out.f.Close()
			r.out.f = full
		} else {
			_ = r.file.Close()
			r.file = full
			r.put("audio", opus, a.at(0, number(0))...)
			r.WriteSenderReport("audio", a.report(0))
		}
		for n := range 200 {
			r.put("audio", opus, a.at(time.Duration(n)*20*time.Millisecond, number(n))...)
		}
		if !r.over {
			t.Errorf("%s: the recorder still writes", after)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: told twice: %v", after, err)
		}
	}
}

func TestRecordingPlaysThoughNeverClosed(t *testing.T) {
	r := record(t, both)
	a, v := newStream(opus, 0), newStream(vp8, 0)
	r.put("audio", opus, a.at(0, number(0))...)
	r.put("video", vp8, v.at(0, vp8Frame(0, true))...)
	r.WriteSenderReport("audio", a.report(0))
	r.WriteSenderReport("video", v.report(0))
	for ms := 20; ms < 4000; ms += 20 {
		at := time.Duration(ms) * time.Millisecond
		r.put("audio", opus, a.at(at, number(ms))...)
		if ms%40 == 0 {
			r.put("video", vp8, v.at(at, vp8Frame(ms, ms%1000 == 0))...)
		}
	}
	data, err := os.ReadFile(r.Path()) // as a kill would leave it
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseClip(data)
	if err != nil || c.frames[len(c.frames)-1].at < 3*time.Second {
		t.Fatalf("killed after 4 s: %v", err)
	}
	if _, err := exec.LookPath("ffprobe"); err == nil {
		out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", r.Path()).CombinedOutput()
		if err != nil || string(out) != "vp8\nopus\n" {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestLaterReportsMoveGently(t *testing.T) {
	r := record(t, both[:1])
	a := newStream(opus, 0)
	r.put("audio", opus, a.at(0, number(0))...)
	r.WriteSenderReport("audio", a.report(0))
	tr := r.tracks["audio"]
	was := tr.offset
	lie := a.report(0)
	lie.NTPTime += 3600 << 32
	r.WriteSenderReport("audio", lie)
	if d := tr.offset - was; d != maxSlew {
		t.Errorf("one report moved the sound by %v", d)
	}
}

func TestJitterBuffer(t *testing.T) {
	p := func(seq uint16) *rtp.Packet {
		return &rtp.Packet{Header: rtp.Header{SequenceNumber: seq, Timestamp: uint32(seq) * 960}, Payload: []byte{byte(seq)}}
	}
	span := func(from, to uint16) (out []uint16) {
		for s := from; s != to; s++ {
			out = append(out, s)
		}
		return out
	}
	for name, c := range map[string]struct{ in, out []uint16 }{
		"in order":      {[]uint16{1, 2, 3}, []uint16{1, 2, 3}},
		"swapped":       {[]uint16{1, 3, 2, 4}, []uint16{1, 2, 3, 4}},
		"twice":         {[]uint16{1, 1, 2, 2, 3}, []uint16{1, 2, 3}},
		"wrap":          {[]uint16{65534, 0, 65535, 1}, []uint16{65534, 65535, 0, 1}},
		"too late":      {append(span(1, 60), 3), span(1, 60)},
		"lost for good": {append([]uint16{1}, span(3, 60)...), append([]uint16{1}, span(3, 60)...)},
		"restart":       {[]uint16{100, 101, 40000, 40001}, []uint16{100, 101, 40000, 40001}},
		"restart back":  {[]uint16{40000, 40001, 100, 101}, []uint16{40000, 40001, 100, 101}},
	} {
		j := newJitterBuffer(profiles.Codec{Name: "opus", ClockRate: 48000})
		var got []byte
		for _, s := range c.in {
			for _, f := range j.push(p(s)) {
				got = append(got, f.data...)
			}
			if len(j.waiting) > reorderPackets+1 {
				t.Fatalf("%s: %d packets wait", name, len(j.waiting))
			}
		}
		for _, f := range j.flush() {
			got = append(got, f.data...)
		}
		var want []byte
		for _, s := range c.out {
			want = append(want, byte(s))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestLostPacketSpoilsItsFrameOnly(t *testing.T) {
	s := newStream(vp8, 0)
	j := newJitterBuffer(vp8)
	var got []string
	for n := range 40 {
		ps := s.at(time.Duration(n)*40*time.Millisecond, append(vp8Frame(n, n == 0), make([]byte, 3000)...))
		if n == 5 {
			ps = slices.Delete(ps, 1, 2)
		}
		for _, p := range ps {
			for _, f := range j.push(p) {
				n := binary.BigEndian.Uint32(f.data[10:])
				got = append(got, fmt.Sprint(n, f.lost, len(f.data) == 3014))
			}
		}
	}
	if len(got) != 39 || got[4] != "4 false true" || got[5] != "6 true true" || got[6] != "7 false true" {
		t.Fatalf("%d frames: %v", len(got), got[:min(8, len(got))])
	}
}

func FuzzRecorder(f *testing.F) {
	h := newPacker(profiles.Codec{Name: "H264", ClockRate: 90000})
	for _, p := range h.pack([]byte{0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 1, 0, 0, 0, 1, 0x68, 1, 2, 0, 0, 0, 1, 0x65, 1, 2, 3}, 0) {
		f.Add("H264", p.Payload, uint16(1), uint32(0), uint64(1)<<32)
	}
	f.Add("VP8", append([]byte{0x10}, vp8Frame(1, true)...), uint16(9), uint32(9), uint64(0))
	f.Add("VP8", []byte{0x90, 0x80}, uint16(9), uint32(1<<31), uint64(1))
	f.Add("H264", []byte{0x7c, 0x85}, uint16(40000), uint32(5), uint64(1)<<63)
	f.Add("opus", []byte{0xfc}, uint16(2), uint32(1<<31), uint64(1)<<40)
	path := filepath.Join(f.TempDir(), "fuzz.mkv")
	f.Fuzz(func(t *testing.T, name string, payload []byte, seq uint16, stamp uint32, ntp uint64) {
		_ = os.Remove(path)
		r, err := newRecorder(path, both, quiet)
		if err != nil {
			t.Fatal(err)
		}
		kind, codec := "video", profiles.Codec{Name: name, ClockRate: 90000}
		if name == "opus" {
			kind, codec = "audio", opus
		}
		for i := range uint16(4) {
			r.WriteRTP(kind, codec, &rtp.Packet{Header: rtp.Header{SequenceNumber: seq * i, Timestamp: stamp * uint32(i), Marker: i%2 == 1}, Payload: payload})
			r.WriteSenderReport(kind, &rtcp.SenderReport{NTPTime: ntp, RTPTime: stamp})
		}
		_ = r.Close()
	})
}
