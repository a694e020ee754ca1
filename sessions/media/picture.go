package media

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxKept bounds the group of pictures that waits for a sink's child: 2 s at 16 Mbit/s.
	maxKept = 4 << 20
	// burst packets leave for a child every burstPause: Linux's default buffer of a socket
	// (208 KiB) takes some 90 packets, and a child that begins does not read at once.
	burst, burstPause = 32, 4 * time.Millisecond
	// A child is looked for every lookSoon while it ought to begin, that long, then every lookLate.
	lookSoon, lookLate, soon = 10 * time.Millisecond, 250 * time.Millisecond, 5 * time.Second
)

// group is the picture since its last key frame. A child that begins to listen gets it at
// once and need not wait until the other side has sent another key frame.
type group struct {
	packets [][]byte
	bytes   int
	begun   bool // a key frame is its first
	sent    int  // of the packets, to the child that runs now
}

func (g *group) add(b []byte, key bool) {
	if key {
		*g = group{begun: true}
	}
	if !g.begun {
		return
	}
	if g.bytes += len(b); g.bytes > maxKept {
		*g = group{}
		return
	}
	g.packets = append(g.packets, b)
}

// next are a few packets that the child has not got.
func (g *group) next() [][]byte {
	out := g.packets[g.sent:min(len(g.packets), g.sent+burst)]
	g.sent += len(out)
	return out
}

// showPicture hands a packet of the picture to the child, or keeps it until there is one
// that listens.
func (s *pipelineSink) showPicture(o *output, b []byte, key bool) {
	s.mu.Lock()
	o.kept.add(b, key)
	if key {
		s.waits = false
	}
	live := s.live
	if live {
		o.kept.sent = len(o.kept.packets)
	}
	s.mu.Unlock()
	if !live {
		return
	}
	if _, err := o.conn.Write(b); errors.Is(err, syscall.ECONNREFUSED) { // of the packet before: the child is gone
		s.mu.Lock()
		s.awaitChild()
		s.mu.Unlock()
	}
}

// awaitChild keeps what comes until a child listens; mu is held.
func (s *pipelineSink) awaitChild() {
	s.live = false
	s.waits = false
	for _, o := range s.outs {
		o.kept.sent = 0
		s.waits = s.waits || o.kind == "video" && !o.kept.begun
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve gives each child, once it listens, the picture since the last key frame and what
// ties sound and picture together.
func (s *pipelineSink) serve(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		if !s.childListens(ctx) {
			return
		}
		s.mu.Lock()
		for _, o := range s.outs {
			if o.report != nil {
				_, _ = o.reports.Write(o.report)
			}
		}
		s.mu.Unlock()
		for s.catchUp() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(burstPause):
			}
		}
	}
}

// catchUp sends a few packets; false: there are no more, and what comes goes to the child.
func (s *pipelineSink) catchUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := false
	for _, o := range s.outs {
		for _, b := range o.kept.next() {
			_, _ = o.conn.Write(b)
			more = true
		}
	}
	s.live = !more
	return more
}

// childListens waits until a child has opened the ports of the picture; false: ctx ended.
func (s *pipelineSink) childListens(ctx context.Context) bool {
	began := time.Now()
	for {
		ready := true
		for _, o := range s.outs {
			ready = ready && (o.kind != "video" || listens(o.port))
		}
		if ready {
			return true
		}
		pause := lookSoon
		if time.Since(began) > soon {
			pause = lookLate
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// listens reports whether some program has a UDP port open. Sending to it would not tell: the
// refusal comes later, when the kernel is busy. Where the kernel does not say, it is believed.
func listens(port int) bool {
	suffix := ":" + strings.ToUpper(strconv.FormatInt(int64(port), 16))
	known := false
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} { // local address is the second word
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		known = true
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], suffix) {
				return true
			}
		}
	}
	return !known
}
