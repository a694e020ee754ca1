package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

const (
	// fanSettled is how long viewers are left alone before what they see and cost is
	// measured, and fanMeasured for how long.
	fanSettled, fanMeasured = 3 * time.Second, 12 * time.Second
	// fanPeers is what was measured of others with 20 and 100 viewers of 2 Mbit/s; neither
	// can be installed here, so they do not run beside us.
	fanPeers20  = "MediaMTX 2.1, go2rtc 2.4 (measured earlier; not installable here)"
	fanPeers100 = "MediaMTX 1.3, go2rtc 1.9 (measured earlier; not installable here)"
)

// fan is a device with a camera and its viewers: two processes, two hosts.
type fan struct {
	lab    *netlab.Lab
	dir    string
	server *exec.Cmd
	device *netlab.Host // of the server
	home   *netlab.Host // of the viewers
}

// watch is a process of viewers.
type watch struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	n   int // viewers
}

func newFan() (*fan, error) {
	f := &fan{}
	var err error
	if f.dir, err = os.MkdirTemp("", "hallway-fan"); err != nil {
		return f, err
	}
	if err := buildFan(f.program()); err != nil {
		return f, err
	}
	if f.lab, err = netlab.New(); err != nil {
		return f, err
	}
	if f.device, err = f.lab.Host("camera"); err != nil {
		return f, err
	}
	if f.home, err = f.lab.Host("viewers"); err != nil {
		return f, err
	}
	f.server = f.device.Command(context.Background(), f.program(), "serve", f.socket())
	f.server.Stderr = os.Stderr
	if err := f.server.Start(); err != nil {
		return f, err
	}
	return f, until(5*time.Second, "the camera's device serves", func() bool { _, err := os.Stat(f.socket()); return err == nil })
}

func (f *fan) program() string { return filepath.Join(f.dir, "fan") }
func (f *fan) socket() string  { return filepath.Join(f.dir, "signal") }

func (f *fan) close() error {
	var errs []error
	if f.server != nil && f.server.Process != nil {
		_ = syscall.Kill(-f.server.Process.Pid, syscall.SIGTERM)
		_ = f.server.Wait()
	}
	if f.lab != nil {
		errs = append(errs, f.lab.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// watch starts n viewers; it returns when all have their answers.
func (f *fan) watch(n int) (*watch, error) {
	w := &watch{n: n, cmd: f.home.Command(context.Background(), f.program(), "view", f.socket(), fmt.Sprint(n))}
	w.cmd.Stderr = os.Stderr
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := w.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the viewers did not join: %w", err), w.cmd.Wait())
	}
	return w, nil
}

// mallocs is how often the server has allocated.
func (f *fan) mallocs() (n float64, err error) {
	c, err := net.Dial("unix", f.socket())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "\"\"\n"); err != nil {
		return 0, err
	}
	return n, json.NewDecoder(c).Decode(&n)
}

// leave ends the viewers in good order.
func (w *watch) leave() error { return errors.Join(w.in.Close(), w.cmd.Wait()) }

// seen is what viewers saw, and what that cost the server.
type seen struct {
	KeyMs                  []float64
	DelayMs, DirectMs      []float64
	Bytes, Packets, Frames uint64
	Lost                   int64
	SilentAt               int
	cpu                    float64 // seconds
	mallocs                float64
	added                  []float64 // ms, from kernel to kernel, sorted
	rss                    float64   // MiB, at the end
}

func (f *fan) measure(w *watch) (s seen, err error) {
	direct := f.device.Command(context.Background(), f.program(), "camera", fmt.Sprintf("%s:%d", f.home.IPv4, 7000+w.n))
	if err := direct.Start(); err != nil {
		return s, err
	}
	defer func() {
		_ = syscall.Kill(-direct.Process.Pid, syscall.SIGKILL)
		_ = direct.Wait()
	}()
	time.Sleep(fanSettled)
	pid := f.server.Process.Pid
	made, err1 := f.mallocs()
	before, err2 := cpuTicks(pid)
	if err := errors.Join(err1, err2); err != nil {
		return s, err
	}
	if _, err := io.WriteString(w.in, "\n"); err != nil {
		return s, err
	}
	stop, err := f.taps()
	if err != nil {
		return s, err
	}
	time.Sleep(fanMeasured)
	after, err1 := cpuTicks(pid)
	more, err2 := f.mallocs()
	if err := errors.Join(err1, err2); err != nil {
		return s, err
	}
	if _, err := io.WriteString(w.in, "\n"); err != nil {
		return s, err
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, err
	}
	s.cpu, s.mallocs = float64(after-before)/100, more-made
	s.rss, err1 = memory(pid)
	s.added, err2 = stop()
	return s, errors.Join(err1, err2)
}

// fans measures one camera of 2 Mbit/s with 20 and with 100 viewers.
func fans(string) (rows []row, err error) {
	f, err := newFan()
	defer func() { err = errors.Join(err, f.close()) }()
	if err != nil {
		return nil, err
	}
	first, err := f.watch(1) // keeps the camera on
	if err != nil {
		return nil, err
	}
	alone, err := f.measure(first)
	if err != nil {
		return nil, err
	}
	if len(alone.DelayMs) != 3 || len(alone.DirectMs) != 3 {
		return nil, errors.New("the first viewer saw nothing")
	}
	rows = append(rows, row{Name: "fan-out to 1: added delay of a frame, median", Value: median(alone.added), Unit: "ms", Budget: 1})
	for _, x := range []struct {
		n      int
		budget float64
		peers  string
	}{{20, 1.5, fanPeers20}, {100, 0.9, fanPeers100}} {
		w, err := f.watch(x.n)
		if err != nil {
			return nil, err
		}
		s, err := f.measure(w)
		if err = errors.Join(err, w.leave()); err != nil {
			return nil, err
		}
		if len(s.KeyMs) != x.n || s.SilentAt != 0 || len(s.DelayMs) != 3 || len(s.DirectMs) != 3 {
			return nil, fmt.Errorf("%d of %d viewers had a key frame, %d saw nothing: there is nothing to measure", len(s.KeyMs), x.n, s.SilentAt)
		}
		rows = append(rows, fanRows(x.n, x.budget, x.peers, s, alone)...)
	}
	return rows, first.leave()
}

func fanRows(n int, budget float64, peers string, s, alone seen) []row {
	slices.Sort(s.KeyMs)
	gbit := float64(s.Bytes) * 8 * float64(n+1) / float64(n) / 1e9 // and the one that keeps the camera on
	fmt.Fprintf(os.Stderr, "%d viewers: %.2f CPU s for %.2f Gbit, RSS %.1f MiB (%.1f with one), delay %v ms, without a device between %v (median, 99 %%, worst), added %.3f ms (first tenth %.3f, last %.3f), key frames %.1f to %.1f ms\n",
		n, s.cpu, gbit, s.rss, alone.rss, s.DelayMs, s.DirectMs, median(s.added), s.added[len(s.added)/10], s.added[len(s.added)*9/10], s.KeyMs[0], s.KeyMs[n-1])
	name := func(what string) string { return fmt.Sprintf("fan-out to %d: %s", n, what) }
	// Allocations are of the whole server: what ICE, RTCP and the source make. Tests show that
	// handing a packet to a viewer makes none.
	rows := []row{
		{Name: name("CPU seconds for each Gbit"), Value: s.cpu / gbit, Unit: "s", Budget: budget, Peer: peers},
		{Name: name("memory for each viewer"), Value: (s.rss - alone.rss) / float64(n), Unit: "MiB", Budget: 1, Peer: "MediaMTX 4, go2rtc 5 (measured earlier)"},
		{Name: name("allocations for each packet sent"), Value: s.mallocs / float64(s.Packets), Budget: 0.5},
		{Name: name("camera to complete frame, 99 %"), Value: s.DelayMs[1], Unit: "ms", Budget: 300},
		{Name: name("accept to complete key frame, 95 %"), Value: s.KeyMs[n*95/100], Unit: "ms", Budget: 100, Peer: "MediaMTX, go2rtc 1200 to 1300, median (measured earlier)"},
		{Name: name("packets lost of a million"), Value: float64(s.Lost) / float64(s.Packets) * 1e6, Budget: 100},
	}
	if n == 20 {
		rows = append(rows,
			row{Name: name("added delay of a frame, median"), Value: median(s.added), Unit: "ms", Budget: 1},
			// What one sees at the end: 20 receivers decrypt on the same processors. Peers were measured so.
			row{Name: name("added delay, with the viewers' own work"), Value: s.DelayMs[0] - s.DirectMs[0], Unit: "ms", Budget: 2, Peer: "MediaMTX, go2rtc 1.2 to 2 (measured earlier)"})
	}
	return rows
}
