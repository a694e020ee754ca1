package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// hasty is a supervisor's patience on another scale: the programs are real, the waits short.
func hasty() patience {
	return patience{pause: 5 * time.Millisecond, restarts: 3, well: 40 * time.Millisecond, first: 300 * time.Millisecond, silence: 300 * time.Millisecond}
}

func shell(script string) func() []string {
	return func() []string { return []string{"sh", "-c", script} }
}

// starts counts lines that a script appends to a file with each start.
func starts(t testing.TB) (file string, count func() int) {
	file = filepath.Join(t.TempDir(), "starts")
	return file, func() int {
		b, _ := os.ReadFile(file)
		return strings.Count(string(b), "\n")
	}
}

func TestChildThatDiesAtOnceIsGivenUp(t *testing.T) {
	defer goleak.VerifyNone(t)
	file, count := starts(t)
	p := hasty()
	p.well = time.Minute // a busy machine needs long to start a shell
	err := supervisor{command: shell("echo x >> " + file + "; echo 'cannot open the camera' >&2; exit 3"), patience: p, log: slog.New(slog.DiscardHandler)}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot open the camera") || !strings.Contains(err.Error(), "again and again") || count() != 4 {
		t.Errorf("%v after %d starts", err, count())
	}
}

func TestChildThatDropsOutNowAndThenIsKept(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file, count := starts(t)
	p := hasty()
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor{command: shell("echo x >> " + file + "; sleep 0.06"), patience: p, log: slog.New(slog.DiscardHandler)}.run(ctx)
	}()
	waitFor(t, "far more starts than a failing child gets", func() bool { return count() > 4*(p.restarts+1) || len(ended) > 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSilentSourceIsOneSentenceAtOnce(t *testing.T) {
	defer goleak.VerifyNone(t)
	file, count := starts(t)
	s := supervisor{command: shell("echo x >> " + file + "; echo 'waiting for the camera' >&2; sleep 1000"), packets: &atomic.Int64{}, patience: hasty(), log: slog.New(slog.DiscardHandler)}
	begun := time.Now()
	err := s.run(t.Context())
	if !errors.Is(err, errSilent) || !strings.Contains(err.Error(), "waiting for the camera") || count() != 1 {
		t.Errorf("%v after %d starts", err, count())
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("told after %v", took)
	}
}

func TestSourceThatStopsSendingIsStartedAgain(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file, count := starts(t)
	var packets atomic.Int64
	s := supervisor{command: shell("echo x >> " + file + "; sleep 1000"), packets: &packets, patience: hasty(), log: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	seen := 0
	waitFor(t, "a third start", func() bool {
		if n := count(); n > seen { // each child sends once and then hangs
			seen = n
			packets.Add(1)
		}
		return seen >= 3
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestChangedCommandRunsWithoutCountingAsFailure(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file, count := starts(t)
	changed := make(chan struct{}, 1)
	s := supervisor{command: shell("echo x >> " + file + "; exec sleep 1000"), changed: changed, patience: hasty(), log: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	for i := 1; i < 10; i++ {
		waitFor(t, fmt.Sprintf("start %d", i), func() bool { return count() >= i })
		changed <- struct{}{}
	}
	waitFor(t, "the last start", func() bool { return count() >= 10 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A child that ignores SIGTERM, and whose own children do, is gone within a second of the
// end of its call.
func TestStubbornFamilyIsKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	script := "trap '' TERM; (trap '' TERM; sleep 1000 & echo $! >> " + file + "; wait) & echo $! $$ >> " + file + "; while :; do sleep 1000; done"
	p := profiles.Pipeline{Name: "stubborn", Kind: profiles.SourcePipeline, Command: []string{"sh", "-c", script}, Audio: sound}
	box := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil)
	_, release, err := box.OpenSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	waitFor(t, "the family", func() bool {
		b, _ := os.ReadFile(file)
		pids = strings.Fields(string(b))
		return len(pids) == 3
	})
	begun := time.Now()
	release()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("freed after %v", took)
	}
	for _, pid := range pids {
		if b, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(b), ") Z ") {
			t.Errorf("process %s lives on: %s", pid, b)
		}
	}
}

// A child that floods standard error neither blocks nor fills the memory; its last words are kept.
func TestFloodOfWordsIsBounded(t *testing.T) {
	err := runOnce(t.Context(), []string{"sh", "-c", "i=0; while [ $i -lt 300 ]; do head -c 100000 /dev/zero | tr '\\0' 'x' >&2; i=$((i+1)); done; printf '\\nthe \\033[31mreason\\n' >&2; exit 1"}, nil, nil)
	if err.words != "the [31mreason" {
		t.Errorf("last words %q", err.words)
	}
	w := &tail{}
	for range 1000 {
		_, _ = w.Write(make([]byte, 3*stderrTail))
	}
	if cap(w.b) > 4*stderrTail {
		t.Errorf("%d bytes are kept of what a child says", cap(w.b))
	}
}

func TestLastWordsSayWhy(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"gstreamer":      {"ERROR: from element v4l2src0: Cannot identify device '/dev/video0'.\nAdditional debug info:\nERROR: pipeline doesn't want to preroll.\nFreeing pipeline ...\n", "ERROR: from element v4l2src0: Cannot identify device '/dev/video0'."},
		"ffmpeg device":  {"[video4linux2 @ 0x1] Cannot open video device\n/dev/video0: No such file or directory\n", "/dev/video0: No such file or directory"},
		"ffmpeg encoder": {"[h264_v4l2m2m @ 0x1] Could not find a valid device\nError initializing output stream\n", "[h264_v4l2m2m @ 0x1] Could not find a valid device"},
		"nothing":        {"", ""},
		"long":           {strings.Repeat("y", 5000), strings.Repeat("y", lastWords)},
	} {
		w := &tail{}
		_, _ = w.Write([]byte(c.in))
		if got := w.last(); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A pipeline makes each codec once, in one child; a further codec starts it anew with both.
func TestOneChildForAllCodecs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "commands")
	stream := func(codecs ...string) *profiles.Stream {
		return &profiles.Stream{Codecs: codecs, Input: []string{"in-" + codecs[0]}, Output: []string{"{{.Input}}:{{.Port}}", "{{.Encoder}}"}}
	}
	p := profiles.Pipeline{Name: "x", Kind: profiles.SourcePipeline, Command: []string{"ffmpeg"}, Audio: stream("opus", "PCMU"), Video: stream("H264")}
	// The program is a script that notes how it was called, found under ffmpeg's name.
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *nut*) head -c 500 /dev/zero; exit 0;; esac\necho \"$*\" >> " + file + "\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "ffmpeg"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	box := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil)
	commands := func() []string {
		b, _ := os.ReadFile(file)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	agreed := func(kind string, codecs ...string) sessions.MediaState {
		m := sessions.MediaState{Kind: kind, Direction: profiles.SendOnly}
		for _, c := range codecs {
			k, _ := profiles.Known(c)
			m.Codecs = append(m.Codecs, k)
		}
		return m
	}
	open := func(want string, media ...sessions.MediaState) (sessions.Source, func()) {
		t.Helper()
		src, release, err := box.OpenSource(t.Context(), media)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if src != nil {
			for _, tr := range src.Tracks() {
				got += tr.Codec.Name + " "
			}
		}
		if strings.TrimSpace(got) != want {
			t.Fatalf("%v gave %q, want %q", media, got, want)
		}
		return src, release
	}
	one, free1 := open("opus", agreed("audio", "G722", "opus", "PCMU"))
	waitFor(t, "the first command", func() bool { return len(commands()) == 1 && commands()[0] != "" })
	if c := commands()[0]; strings.Contains(c, "in-H264") || strings.Contains(c, "x264") || strings.Count(c, "in-opus") != 1 || !strings.Contains(c, "libopus") {
		t.Errorf("a call without picture runs %q", c)
	}
	two, free2 := open("opus", agreed("audio", "opus"))
	if one != two {
		t.Error("the same codecs are not the same source")
	}
	_, free3 := open("PCMU H264", agreed("audio", "PCMU"), agreed("video", "H264"))
	waitFor(t, "the second command", func() bool { return len(commands()) == 2 })
	c := commands()[1]
	for _, word := range []string{"in-opus in-H264", "libopus", "pcm_mulaw", "264", "0:", "1:"} {
		if !strings.Contains(c, word) {
			t.Errorf("%q has no %q", c, word)
		}
	}
	none, free4 := open("", agreed("audio", "G722"))
	if none != nil {
		t.Error("a codec that it cannot make gave a source")
	}
	for _, f := range []func(){free4, free3, free2, free1} {
		f()
	}
	if box.users != 0 || box.open != nil {
		t.Error("it is still open")
	}
}

func TestWhatASourceMakesIsKnownUnopened(t *testing.T) {
	tv, err := profiles.ForClass("tv")
	if err != nil {
		t.Fatal(err)
	}
	p := profiles.Pipeline{Kind: profiles.SourcePipeline, Command: []string{"x"}, Audio: sound}
	got, err := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil).Makes(tv.Capabilities)
	if err != nil || got.Audio.Direction != profiles.SendRecv || got.Audio.Makes[0] != "opus" || got.Video.Direction != profiles.RecvOnly {
		t.Errorf("a microphone: %+v, %v", got, err)
	}
	clip := makeClip(t, "4", "-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0", "-b:v", "2M", "-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1")
	if i, err := os.Stat(clip); err != nil || i.Size() < 2*tracksRead {
		t.Fatal("the clip is too short to show anything", err)
	}
	got, err = NewBox(SourceSpec{Clip: clip}, SinkSpec{}, nil).Makes(tv.Capabilities)
	if err != nil || strings.Join(got.Audio.Makes, " ") != "PCMU" || strings.Join(got.Video.Makes, " ") != "H264" || got.Video.Direction != profiles.SendRecv {
		t.Errorf("a clip: %+v, %v", got, err)
	}
	if got, err := NewBox(SourceSpec{}, SinkSpec{}, nil).Makes(tv.Capabilities); err != nil || got.Video.Direction != profiles.SendRecv {
		t.Errorf("no source: %+v, %v", got, err)
	}
}

// Encoders are tried once, hardware first; what failed is left out; another program, or
// other arguments, are tried again.
func TestEncodersAreTriedOnceAndRemembered(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "encoders.json")
	log, count := starts(t)
	program := func(extra string) {
		t.Helper()
		script := "#!/bin/sh\n" + extra + "echo \"$*\" >> " + log + "\ncase \"$*\" in *h264_v4l2m2m*) echo 'no such device' >&2; exit 1;; *h264_omx*) exit 0;; esac\nhead -c 500 /dev/zero\n"
		if err := os.WriteFile(filepath.Join(dir, "ffmpeg"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program("")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	own := []profiles.Encoder{{Name: "h264_omx", Program: "ffmpeg", Codec: "H264", Hardware: true, Args: []string{"-c:v", "h264_omx"}}, {Name: "h264_v4l2m2m", Program: "ffmpeg", Codec: "H264", Hardware: true, Args: []string{"-c:v", "h264_v4l2m2m"}}, {Name: "mine", Program: "ffmpeg", Codec: "H264", Args: []string{"mine"}}}
	open := func() *Encoders {
		e, err := NewEncoders(own, file)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := open()
	if e.Fresh("ffmpeg", []string{"H264"}) || len(e.Makes("ffmpeg", []string{"H264"})) != 1 || count() != 0 {
		t.Error("something ran, or an untried encoder is not believed")
	}
	x, err := e.Pick(t.Context(), "ffmpeg", "h264")
	if err != nil || x.Name != "mine" || count() != 3 {
		t.Fatalf("%+v %v after %d trials", x, err, count())
	}
	if !e.Fresh("ffmpeg", []string{"H264"}) {
		t.Error("it would try again")
	}
	if x, err = open().Pick(t.Context(), "ffmpeg", "H264"); err != nil || x.Name != "mine" || count() != 3 {
		t.Errorf("%+v %v, %d trials after a restart", x, err, count())
	}
	program("# newer\n")
	if x, err = open().Pick(t.Context(), "ffmpeg", "H264"); err != nil || count() != 6 {
		t.Errorf("%+v %v, %d trials with a newer program", x, err, count())
	}
	own[2].Args = []string{"h264_v4l2m2m"}
	if _, err = (&Encoders{table: own, file: file, trials: map[string]Trial{}}).Pick(t.Context(), "ffmpeg", "H264"); err == nil || !strings.Contains(err.Error(), "no such device") || !strings.Contains(err.Error(), "it makes nothing") {
		t.Errorf("none works: %v", err)
	}
	if err := os.WriteFile(file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Pick(t.Context(), "ffmpeg", "opus"); err != nil {
		t.Errorf("a damaged file of results: %v", err)
	}
	if _, err := open().Pick(t.Context(), "nosuch", "opus"); err == nil {
		t.Error("an unknown program has an encoder")
	}
}

// A screen that is told of one codec and gets another is started anew with that one.
func TestSinkFollowsTheCodec(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sdp")
	p := profiles.Pipeline{Name: "out", Kind: profiles.SinkPipeline, Command: []string{"sh", "-c", "cat $0 >> " + file + "; echo volume $1 >> " + file + "; exec sleep 1000", "{{.SDP}}", "{{.Volume}}"}}
	box := NewBox(SourceSpec{}, SinkSpec{Pipeline: &p}, nil)
	sink, err := box.OpenSink(t.Context(), "c", "r", []sessions.MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.RecvOnly}})
	if err != nil {
		t.Fatal(err)
	}
	has := func(word string) func() bool {
		return func() bool {
			b, _ := os.ReadFile(file)
			return strings.Contains(string(b), word)
		}
	}
	waitFor(t, "the presumed codec", has("a=rtpmap:111 opus/48000/2"))
	pcmu, _ := profiles.Known("PCMU")
	for _, packet := range newStream(pcmu, 0).at(0, make([]byte, 160)) {
		sink.WriteRTP("audio", pcmu, packet)
	}
	waitFor(t, "the codec that came", has("a=rtpmap:111 PCMU/8000\n"))
	waitFor(t, "full volume", has("volume 100"))
	box.SetVolume(250)
	box.SetVolume(30)
	waitFor(t, "the new volume", has("volume 30"))
	if level, works := box.Volume(); level != 30 || !works {
		t.Error(level, works)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	box.SetVolume(40) // nobody listens any more
}

// A screen asks for a key frame until it has had one. What came before its program listens is
// kept, and the program gets it then: from the key frame on, in order, without a gap to what
// comes live. A program that is started anew gets it again.
func TestSinkGivesItsProgramTheWholePicture(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := profiles.Pipeline{Name: "out", Kind: profiles.SinkPipeline, Command: []string{"sleep", "1000", "{{.SDP}}", "{{.Volume}}"}}
	box := NewBox(SourceSpec{}, SinkSpec{Pipeline: &p}, nil)
	s, err := box.OpenSink(t.Context(), "c", "r", []sessions.MediaState{{Kind: "video", Codec: "H264", Direction: profiles.RecvOnly}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	sink := s.(*pipelineSink)
	h264, _ := profiles.Known("H264")
	waitFor(t, "its program", sink.NeedsKeyFrame)
	var seq uint16
	write := func(nal byte) {
		seq++
		sink.WriteRTP("video", h264, &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq}, Payload: []byte{nal, 0x42, 0xe0, 0x1f, 1, 2, 3}})
	}
	write(0x61) // of a picture whose beginning nobody has
	if !sink.NeedsKeyFrame() {
		t.Error("satisfied with half a picture")
	}
	first := seq + 1
	write(0x67)
	for range 3 * burst {
		write(0x61)
	}
	if sink.NeedsKeyFrame() {
		t.Error("asks for a key frame that it keeps")
	}
	listen := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sink.outs[0].port})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
	expect := func(conn *net.UDPConn, from, to uint16) {
		t.Helper()
		b := make([]byte, 2048)
		for want := from; want <= to; want++ {
			n, err := conn.Read(b)
			var got rtp.Packet
			if err != nil || got.Unmarshal(b[:n]) != nil || got.SequenceNumber != want {
				t.Fatalf("packet %d instead of %d: %v", got.SequenceNumber, want, err)
			}
		}
	}
	conn := listen()
	expect(conn, first, seq)
	for range 5 {
		write(0x61)
	}
	expect(conn, seq-4, seq)
	_ = conn.Close()
	box.SetVolume(40) // a new program
	conn = listen()
	defer func() { _ = conn.Close() }()
	expect(conn, first, seq)
}

func TestKeptPictureIsBounded(t *testing.T) {
	var g group
	g.add(make([]byte, 1000), true)
	for range 2 * maxKept / 1000 {
		g.add(make([]byte, 1000), false)
		if g.bytes > maxKept {
			t.Fatalf("%d bytes are kept", g.bytes)
		}
	}
	if g.begun || len(g.packets) != 0 {
		t.Error("a picture without its beginning is kept")
	}
	if g.add(make([]byte, 1000), true); !g.begun || len(g.next()) != 1 {
		t.Error("the next key frame is not kept")
	}
}

// What fails is said in a sentence with what to do, and taken back when it works again.
func TestOutputSaysWhatIsWrongUntilItWorks(t *testing.T) {
	defer goleak.VerifyNone(t)
	mends := filepath.Join(t.TempDir(), "mends")
	p := profiles.Pipeline{Name: "out", Kind: profiles.SinkPipeline, Command: []string{"sh", "-c", "[ -e " + mends + " ] && exec sleep 1000; echo 'ALSA: no such device' >&2; exit 1", "{{.SDP}}", "{{.Volume}}"}}
	box := NewBox(SourceSpec{}, SinkSpec{Pipeline: &p}, nil)
	s, err := box.OpenSink(t.Context(), "c", "r", []sessions.MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.RecvOnly}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	says := s.(sessions.Fallible).Trouble
	waitFor(t, "a sentence", func() bool { return strings.Contains(says(), "no such device") })
	if got := says(); !strings.HasPrefix(got, "The loudspeaker of this device does not work: sh says") || !strings.HasSuffix(got, "plugged in and its sound server runs.") {
		t.Errorf("it says %q", got)
	}
	if err := os.WriteFile(mends, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	box.SetVolume(30) // starts what was given up, too
	waitFor(t, "the sentence to be taken back", func() bool { return says() == "" })
}
