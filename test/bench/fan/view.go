package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/rtc"
)

// figures are what the viewers saw together in the time between two lines on the standard
// input; keyMs is of their beginnings.
type figures struct {
	KeyMs    []float64 // accept to the first complete key frame, for each viewer
	DelayMs  []float64 // the camera to a complete frame here: percentiles 50, 99 and 100
	DirectMs []float64 // the same from a camera that sends its datagrams here by itself
	Bytes    uint64    // payload
	Packets  uint64
	Lost     int64
	Frames   uint64
	SilentAt int // viewers that got nothing in that time
}

// directPort, and the number of viewers, is where the camera without a device sends.
const directPort = 7000

// direct takes that camera's frames.
func direct(port int) (*viewer, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	v := &viewer{}
	go func() {
		for b := make([]byte, 2048); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			var p rtp.Packet
			if p.Unmarshal(b[:n]) == nil {
				v.WriteRTP("video", profiles.Codec{}, &p)
			}
		}
	}()
	return v, nil
}

// joinEvery is the pause between two viewers that come.
const joinEvery = 40 * time.Millisecond

// viewer is one device that looks, with a socket of its own.
type viewer struct {
	leg      sessions.Leg
	signal   net.Conn
	accepted time.Time
	complete func(key bool, left int64) // told of each frame, if set; mu is held

	mu      sync.Mutex
	key     time.Duration // of the first complete key frame
	begun   bool          // a frame with its beginning
	isKey   bool
	next    uint16
	stamp   int64
	delays  []time.Duration
	frames  uint64
	bytes   uint64
	packets uint64
}

// OpenSource implements sessions.Endpoint: a viewer sends nothing.
func (v *viewer) OpenSource(context.Context, []sessions.MediaState) (sessions.Source, func(), error) {
	return nil, func() {}, nil
}

// OpenSink implements sessions.Endpoint.
func (v *viewer) OpenSink(context.Context, string, string, []sessions.MediaState) (sessions.Sink, error) {
	return v, nil
}

// WriteRTP implements sessions.Sink.
func (v *viewer) WriteRTP(_ string, _ profiles.Codec, p *rtp.Packet) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.packets++
	v.bytes += uint64(len(p.Payload))
	hole := p.SequenceNumber != v.next
	v.next = p.SequenceNumber + 1
	if len(p.Payload) < 3 {
		return
	}
	switch kind := p.Payload[0] & 0x1f; {
	case kind == 24: // STAP-A: the parameter sets
		v.begun, v.isKey, v.stamp = true, true, 0
		return
	case kind == 28 && p.Payload[1]&0x80 != 0: // FU-A, first
		if p.Payload[1]&0x1f == 5 {
			v.begun = v.begun && !hole
		} else {
			v.begun, v.isKey = true, false
		}
		at, err := strconv.ParseInt(string(p.Payload[skip+1:skip+1+stampDigits]), 16, 64)
		if err != nil {
			v.begun = false
			return
		}
		v.stamp = at
	case hole:
		v.begun = false
	}
	if !p.Marker || !v.begun || v.stamp == 0 {
		return
	}
	v.frames++
	if v.isKey && v.key == 0 {
		v.key = now.Sub(v.accepted)
	}
	if v.complete != nil {
		v.complete(v.isKey, v.stamp)
	} else {
		v.delays = append(v.delays, now.Sub(time.Unix(0, v.stamp)))
	}
	v.begun, v.isKey = false, false
}

// WriteSenderReport implements sessions.Sink.
func (v *viewer) WriteSenderReport(string, *rtcp.SenderReport) {}

// NeedsKeyFrame implements sessions.Sink.
func (v *viewer) NeedsKeyFrame() bool { return false }

// Path implements sessions.Sink.
func (v *viewer) Path() string { return "" }

// Close implements sessions.Sink.
func (v *viewer) Close() error { return nil }

func (v *viewer) join(socket string, caps profiles.Capabilities) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fac := rtc.New(rtc.Config{Endpoint: v})
	var err error
	if v.leg, err = fac.NewLeg(sessions.LegConfig{CallID: "view", Remote: "camera", Capabilities: caps}); err != nil {
		return err
	}
	offer, err := v.leg.Offer(ctx)
	if err != nil {
		return err
	}
	if v.signal, err = net.Dial("unix", socket); err != nil {
		return err
	}
	if err := json.NewEncoder(v.signal).Encode(offer); err != nil {
		return err
	}
	var answer []byte
	if err := json.NewDecoder(v.signal).Decode(&answer); err != nil {
		return err
	}
	v.mu.Lock()
	v.accepted = time.Now()
	v.mu.Unlock()
	return errors.Join(v.leg.SetAnswer(ctx, answer), v.leg.Start(ctx))
}

// view joins n viewers one after the other, says so, and then measures between the first
// and the second line on its standard input.
func view(socket, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	p, err := profiles.ForClass("tv")
	if err != nil {
		return err
	}
	p.Capabilities.Audio = profiles.Medium{Direction: profiles.Inactive}
	p.Capabilities.Video.Direction = profiles.RecvOnly
	var all []*viewer
	for range n {
		v := &viewer{}
		if err := v.join(socket, p.Capabilities); err != nil {
			return err
		}
		all = append(all, v)
		time.Sleep(joinEvery)
	}
	alone, err := direct(directPort + n)
	if err != nil {
		return err
	}
	fmt.Println("joined")
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			break
		}
		before := sum(all, true)
		sum([]*viewer{alone}, true)
		if _, err := in.ReadString('\n'); err != nil {
			break
		}
		f := sum(all, false)
		f.DirectMs = sum([]*viewer{alone}, false).DelayMs
		f.Bytes, f.Packets, f.Frames, f.Lost = f.Bytes-before.Bytes, f.Packets-before.Packets, f.Frames-before.Frames, f.Lost-before.Lost
		if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
			return err
		}
	}
	for _, v := range all {
		if err := errors.Join(v.leg.Close(), v.signal.Close()); err != nil {
			slog.Warn("a viewer ends", "err", err)
		}
	}
	return nil
}

// sum adds up what all viewers have seen; fresh forgets the delays.
func sum(all []*viewer, fresh bool) (f figures) {
	var delays []time.Duration
	for _, v := range all {
		if v.leg != nil {
			f.Lost += v.leg.Stats().Video.Lost
		}
		v.mu.Lock()
		f.Bytes, f.Packets, f.Frames = f.Bytes+v.bytes, f.Packets+v.packets, f.Frames+v.frames
		if v.key > 0 {
			f.KeyMs = append(f.KeyMs, ms(v.key))
		}
		if len(v.delays) == 0 {
			f.SilentAt++
		}
		delays = append(delays, v.delays...)
		if fresh {
			v.delays = nil
		}
		v.mu.Unlock()
	}
	if slices.Sort(delays); len(delays) > 0 {
		f.DelayMs = []float64{ms(delays[len(delays)/2]), ms(delays[len(delays)*99/100]), ms(delays[len(delays)-1])}
	}
	return f
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
