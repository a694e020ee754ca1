package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// wholeViewers is how many whole agents look at one camera, beside the first, which opens it.
const wholeViewers = 20

// screen is the profile of a viewer, whose screen writes down what it would show.
const screen = `class: tv
title: Screen
capabilities:
  audio: {direction: inactive}
  video: {direction: recvonly, codecs: [{name: H264, clock: 90000, fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}]}
behaviour: {auto-answer: true, ring-timeout: 45s, max-calls: 1, mobility: fixed, duplex: receive-only}
pipelines:
  - name: frames
    kind: sink
    about: writes down each frame
    command: [%q, sink, %q, "{{.SDP}}"]
    video: {output: []}
`

// whole is a home in which one agent relays an RTSP camera and all others view it, each by a
// call of SIP and a leg of WebRTC.
type whole struct {
	*crowd
	program string // bench/fan
	camera  *exec.Cmd
	calls   []string  // ID of each viewer's
	taps    []*tap    // what each viewer's agent hands to its screen
	shown   []float64 // ms from accept to the first key frame on each screen
}

const (
	// fanGOP and fanTicks are of the camera of bench/fan: frames in a group of pictures, and
	// ticks of RTP time between two frames.
	fanGOP, fanTicks = 60, 3000
)

// frame is one that a viewer's screen had complete; times in ns since 1970.
type frame struct {
	at, left int64
	bytes    uint64
	key      bool
}

func buildFan(program string) error {
	build := exec.Command("go", "build", "-o", program, "./test/bench/fan") //nolint:noctx // ends by itself
	build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	return build.Run()
}

func newWhole(binary string, viewers int) (*whole, error) {
	w := &whole{crowd: &crowd{}}
	var err error
	if w.root, err = os.MkdirTemp("", "hallway-bench"); err != nil {
		return w, err
	}
	w.program = filepath.Join(w.root, "fan")
	if err := buildFan(w.program); err != nil {
		return w, err
	}
	if w.lab, err = netlab.New(); err != nil {
		return w, err
	}
	for i := range viewers + 1 {
		a, err := newAgent(w.lab, w.root, slugOf(i), "tv")
		if err != nil {
			return w, err
		}
		if i > 0 {
			if err := w.giveScreen(a); err != nil {
				return w, err
			}
		}
		w.agents = append(w.agents, a)
		if err := w.admit(binary, i); err != nil {
			return w, err
		}
	}
	if err := w.settled(); err != nil {
		return w, err
	}
	return w, w.adopt()
}

// frames is where an agent's screen writes.
func (w *whole) frames(a *agent) string { return a.dir + ".frames" }

func (w *whole) giveScreen(a *agent) error {
	profile, config := a.dir+".profile", a.dir+".conf"
	a.args = append(a.args, "--config", config, "--sink-pipeline", "frames")
	return errors.Join(
		os.Mkdir(w.frames(a), 0o700),
		os.WriteFile(profile, fmt.Appendf(nil, screen, w.program, w.frames(a)), 0o600),
		os.WriteFile(config, []byte("pipelines: "+profile+"\n"), 0o600))
}

// adopt starts the camera and gives it a name, which all then know.
func (w *whole) adopt() error {
	h, err := w.lab.Host("camera")
	if err != nil {
		return err
	}
	w.camera = h.Command(context.Background(), w.program, "rtsp", ":554")
	w.camera.Stderr = os.Stderr
	if err := w.camera.Start(); err != nil {
		return err
	}
	body := fmt.Sprintf(`{"uri":"rtsp://%s:554/stream","name":"Gate"}`, h.IPv4)
	if err := until(10*time.Second, "the camera is adopted", func() bool { return w.agents[0].do("POST", "/home/cameras", body, nil) == nil }); err != nil {
		return err
	}
	for _, a := range w.agents {
		if err := until(30*time.Second, "all know the camera", a.knowsGate); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) knowsGate() bool {
	var v struct {
		Adopted []struct{ Slug, Status string }
	}
	if a.do("GET", "/devices", "", &v) != nil {
		return false
	}
	return len(v.Adopted) == 1 && v.Adopted[0].Status == "reachable"
}

func (w *whole) close() error {
	if w.camera != nil && w.camera.Process != nil {
		_ = syscall.Kill(-w.camera.Process.Pid, syscall.SIGKILL)
		_ = w.camera.Wait()
	}
	if w.lab == nil {
		return os.RemoveAll(w.root)
	}
	return w.crowd.close()
}

// view lets one agent call the camera.
func (w *whole) view(a *agent) error {
	t, err := listen(w.program, a.host, "lo", cameraPayload)
	if err != nil {
		return err
	}
	w.taps = append(w.taps, t)
	var c struct{ ID string }
	if err := a.do("POST", "/calls", `{"to":"gate","video":true}`, &c); err != nil {
		return err
	}
	w.calls = append(w.calls, c.ID)
	return until(10*time.Second, "a viewer sees", func() bool { return len(w.seenBy(a)) > 0 })
}

// seenBy reads what an agent's screen wrote.
func (w *whole) seenBy(a *agent) (all []frame) {
	files, _ := os.ReadDir(w.frames(a)) // none yet
	for _, e := range files {
		f, err := os.Open(filepath.Join(w.frames(a), e.Name()))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var x frame
			key := 0
			if n, _ := fmt.Sscan(lines.Text(), &x.at, &x.left, &x.bytes, &key); n == 4 {
				x.key = key == 1
				all = append(all, x)
			}
		}
		_ = f.Close()
	}
	return all
}

// wholes measures a camera that an agent relays to other agents, with all that belongs to it.
func wholes(binary string) (rows []row, err error) {
	w, err := newWhole(binary, wholeViewers+1)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return nil, err
	}
	relay, viewers := w.agents[0].cmd.Process.Pid, w.agents[1:]
	if err := w.view(viewers[0]); err != nil { // opens the camera
		return nil, err
	}
	time.Sleep(fanSettled)
	alone, err := memory(relay)
	if err != nil {
		return nil, err
	}
	for _, a := range viewers[1:] {
		if err := w.view(a); err != nil {
			return nil, err
		}
	}
	time.Sleep(fanSettled)
	before, err1 := cpuTicks(relay)
	begin := time.Now().UnixNano()
	time.Sleep(fanMeasured)
	end := time.Now().UnixNano()
	after, err2 := cpuTicks(relay)
	rss, err3 := memory(relay)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	s := seen{cpu: float64(after-before) / 100, rss: rss}
	if err := w.gather(&s, begin, end); err != nil {
		return nil, err
	}
	return w.rows(s, alone), nil
}

// gather adds up what the viewers saw in that time; their key frames and losses are of the
// whole call.
func (w *whole) gather(s *seen, begin, end int64) error {
	var delays []float64
	for i, a := range w.agents[1:] {
		var c struct {
			Answered time.Time
			Stats    struct {
				Video struct {
					Lost     int64
					Received uint64 `json:"packets_received"`
				}
			}
		}
		if err := a.do("GET", "/calls/"+w.calls[i], "", &c); err != nil {
			return err
		}
		s.Lost, s.Packets = s.Lost+c.Stats.Video.Lost, s.Packets+c.Stats.Video.Received
		all, frames := w.seenBy(a), s.Frames
		given, err := w.taps[i].stop()
		if err != nil {
			return err
		}
		if at := firstKey(given); i > 0 && at > 0 { // the first viewer waits for the camera
			s.KeyMs = append(s.KeyMs, float64(at-c.Answered.UnixNano())/1e6)
		}
		if k := slices.IndexFunc(all, func(f frame) bool { return f.key }); i > 0 && k >= 0 {
			w.shown = append(w.shown, float64(all[k].at-c.Answered.UnixNano())/1e6)
		}
		for _, f := range all {
			if f.at >= begin && f.at < end {
				s.Frames, s.Bytes = s.Frames+1, s.Bytes+f.bytes
				delays = append(delays, float64(f.at-f.left)/1e6)
			}
		}
		if s.Frames == frames {
			s.SilentAt++
		}
	}
	if s.SilentAt > 0 || len(s.KeyMs) < wholeViewers {
		return fmt.Errorf("%d of %d viewers had a key frame, %d saw nothing: there is nothing to measure", len(s.KeyMs), wholeViewers, s.SilentAt)
	}
	slices.Sort(delays)
	slices.Sort(s.KeyMs)
	s.DelayMs = []float64{delays[len(delays)/2], delays[len(delays)*99/100], delays[len(delays)-1]}
	return nil
}

// firstKey is when an agent had handed its screen the first key frame. The camera's time stamps count its frames.
func firstKey(given []passed) (at int64) {
	for _, p := range given {
		if p.Stamp%(fanGOP*fanTicks) == 0 && (at == 0 || p.At < at) {
			at = p.At
		}
	}
	return at
}

func (w *whole) rows(s seen, alone float64) []row {
	slices.Sort(w.shown)
	n, gbit := wholeViewers, float64(s.Bytes)*8/1e9
	b, _ := json.Marshal(s.DelayMs) // numbers
	fmt.Fprintf(os.Stderr, "%d whole agents: %.2f CPU s for %.2f Gbit, RSS %.1f MiB (%.1f with one viewer), delay %s ms (median, 99 %%, worst), key frames %.1f to %.1f ms, shown %.1f to %.1f ms\n",
		n, s.cpu, gbit, s.rss, alone, b, s.KeyMs[0], s.KeyMs[n-1], w.shown[0], w.shown[len(w.shown)-1])
	name := func(what string) string { return fmt.Sprintf("RTSP camera to %d agents: %s", n, what) }
	return []row{
		{Name: name("CPU seconds for each Gbit"), Value: s.cpu / gbit, Unit: "s", Budget: 1.5, Peer: fanPeers20},
		{Name: name("memory for each viewer"), Value: (s.rss - alone) / float64(n), Unit: "MiB", Budget: 1, Peer: "MediaMTX 4, go2rtc 5 (measured earlier)"},
		{Name: name("accept to key frame, 95 %"), Value: s.KeyMs[n*95/100], Unit: "ms", Budget: 100, Peer: "MediaMTX, go2rtc 1200 to 1300, median (measured earlier)"},
		// The screen is a child that starts when the call is accepted; the agent keeps the picture
		// until it listens.
		{Name: name("accept to key frame shown, median"), Value: w.shown[len(w.shown)/2], Unit: "ms", Budget: 500},
		{Name: name("delay 3 s later, 99 %"), Value: s.DelayMs[1], Unit: "ms", Budget: 300},
		{Name: name("lost of a million"), Value: float64(s.Lost) / float64(s.Packets) * 1e6, Budget: 100},
	}
}
