package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
	"github.com/hallway-home/hallway/sessions/rtc"
)

// serve is the device with the camera: the media half of an agent, one leg for each
// connection to its socket. What SIP would carry goes through the socket.
func serve(socket string) error {
	debug.SetGCPercent(50) // as the agent does
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := profiles.ForClass("camera")
	if err != nil {
		return err
	}
	pipe := profiles.Pipeline{Name: "stamps", Kind: profiles.SourcePipeline, Command: []string{self, "camera"}, Video: &profiles.Stream{Codecs: []string{"H264"}, Output: []string{"{{.Port}}"}}}
	fac := rtc.New(rtc.Config{Endpoint: media.NewBox(media.SourceSpec{Pipeline: &pipe}, media.SinkSpec{}, slog.Default())})
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	profile()
	for n := 0; ; n++ {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			leg, err := fac.NewLeg(sessions.LegConfig{CallID: "view", Remote: "viewer-" + strconv.Itoa(n), Peer: devices.NodeID{byte(n), byte(n >> 8)}, Capabilities: p.Capabilities})
			if err != nil {
				slog.Error("no leg", "err", err)
				return
			}
			defer func() { _ = leg.Close() }()
			if err := answer(c, leg); err != nil {
				slog.Error("no answer", "err", err)
			}
		}()
	}
}

// answer serves one viewer until its connection ends.
func answer(c net.Conn, leg sessions.Leg) error {
	var offer []byte
	if err := json.NewDecoder(c).Decode(&offer); err != nil {
		return err
	}
	if len(offer) == 0 { // only wants to know
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return json.NewEncoder(c).Encode(m.Mallocs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := leg.Answer(ctx, offer)
	if err != nil {
		return err
	}
	if err := leg.Start(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(c).Encode(out); err != nil {
		return err
	}
	_, _ = c.Read(make([]byte, 1)) // until the viewer leaves
	return nil
}

// profile writes a profile of the processor and of memory after some seconds, if
// FAN_PROFILE names a file and FAN_AFTER a number.
func profile() {
	name := os.Getenv("FAN_PROFILE")
	after, err := strconv.Atoi(os.Getenv("FAN_AFTER"))
	if name == "" || err != nil {
		return
	}
	runtime.MemProfileRate = 512
	go func() {
		time.Sleep(time.Duration(after) * time.Second)
		cpu, err1 := os.Create(name + ".cpu")
		heap, err2 := os.Create(name + ".heap")
		gor, err3 := os.Create(name + ".goroutines")
		if err1 != nil || err2 != nil || err3 != nil {
			return
		}
		if before, err := os.Create(name + ".heap0"); err == nil {
			_ = pprof.Lookup("heap").WriteTo(before, 0)
			_ = before.Close()
		}
		_ = pprof.StartCPUProfile(cpu)
		time.Sleep(8 * time.Second)
		pprof.StopCPUProfile()
		_ = pprof.Lookup("heap").WriteTo(heap, 0)
		_ = pprof.Lookup("goroutine").WriteTo(gor, 1)
		for _, f := range []*os.File{cpu, heap, gor} {
			_ = f.Close()
		}
	}()
}
