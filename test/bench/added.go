package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/test/netlab"
)

// What forwarding adds to the delay of a frame is measured from kernel to kernel: from the
// moment in which the camera's last packet of the frame is received by the device (on its
// loopback, before the agent has read it) to the moment in which the last packet of the frame is
// received by the interface of the viewers' host. In between lie all of the agent's work, its
// waiting for a processor and the wire; what a viewer does with the packet does not. Viewers
// take the same processors, though, and the median is of all frames at all viewers: the first
// that is served counts as much as the last.
const (
	// payload types of the camera of bench/fan, and of H.264 between members.
	cameraPayload, memberPayload = "96", "102"
)

// tap is a process that notes when the kernel receives frames.
type tap struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// passed is when the last packet of one frame came by, in ns, and the port it went to.
type passed struct {
	Port  uint16
	Stamp uint32
	At    int64
}

// listen starts one, of the program bench/fan.
func listen(program string, h *netlab.Host, device, payload string) (*tap, error) {
	t := &tap{cmd: h.Command(context.Background(), program, "tap", device, payload)}
	t.cmd.Stderr = os.Stderr
	in, err1 := t.cmd.StdinPipe()
	out, err2 := t.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	t.in, t.out = in, bufio.NewReader(out)
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := t.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "listening" {
		return nil, errors.Join(errors.New("the interface is not listened to"), err, t.cmd.Wait())
	}
	return t, nil
}

// stop ends it and says what it noted.
func (t *tap) stop() (all []passed, err error) {
	err = errors.Join(t.in.Close(), json.NewDecoder(t.out).Decode(&all))
	return all, errors.Join(err, t.cmd.Wait())
}

// taps listens on both sides of the device, and gives the way to end that.
func (f *fan) taps() (stop func() (added []float64, err error), err error) {
	after, err1 := listen(f.program(), f.home, "eth0", memberPayload)
	before, err2 := listen(f.program(), f.device, "lo", cameraPayload)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return func() ([]float64, error) {
		in, err1 := before.stop()
		out, err2 := after.stop()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return addedDelay(in, out)
	}, nil
}

// addedDelay matches frames by their RTP time stamps, which a viewer gets as the camera made
// them, and gives the difference in ms for each frame and viewer, sorted.
func addedDelay(in, out []passed) (added []float64, err error) {
	came, newest := map[uint32]int64{}, int64(0)
	for _, p := range in {
		came[p.Stamp] = p.At
		newest = max(newest, p.At)
	}
	ports := map[uint16]bool{}
	for _, p := range out {
		ports[p.Port] = true
		if at, ok := came[p.Stamp]; ok && at != newest { // the newest may have been half
			added = append(added, float64(p.At-at)/1e6)
		}
	}
	if want := (len(came) - 1) * len(ports); len(added) == 0 || len(added)*100 < want*99 {
		return nil, fmt.Errorf("%d frames for %d viewers came in and %d left: there is nothing to measure", len(came), len(ports), len(added))
	}
	slices.Sort(added)
	return added, nil
}
