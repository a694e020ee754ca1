package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// homeOfOne is an agent that was started in nothing but its store and roster.
func homeOfOne(t *testing.T) *Agent {
	t.Helper()
	dir := t.TempDir()
	store, err := devices.OpenStore(dir, devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a := &Agent{store: store, log: slog.New(slog.DiscardHandler)}
	a.cfg.Data = dir
	a.key, err = devices.NodeKey(store)
	if err == nil {
		a.self = devices.NodeIDOf(&a.key.PublicKey)
		a.roster, err = trust.OpenLog(store)
	}
	if err == nil {
		_, err = a.roster.Create(a.key, trust.CreateParams{HomeName: "Home", Name: "Hub", Class: devices.ClassPanel})
	}
	if err = errors.Join(err, a.openCameras()); err != nil {
		t.Fatal(err)
	}
	return a
}

// describing is a camera that describes itself and counts who comes.
func describing(t *testing.T) (address string, dials *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dials = &atomic.Int32{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			buf := make([]byte, 2048)
			for n, err := conn.Read(buf); err == nil; n, err = conn.Read(buf) {
				_, cseq, _ := strings.Cut(string(buf[:n]), "CSeq: ")
				cseq, _, _ = strings.Cut(cseq, "\r\n")
				sdp := "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
				if !bytes.HasPrefix(buf, []byte("DESCRIBE")) {
					sdp = ""
				}
				_, _ = conn.Write([]byte("RTSP/1.0 200 OK\r\nCSeq: " + cseq + "\r\nContent-Type: application/sdp\r\nContent-Length: " + strconv.Itoa(len(sdp)) + "\r\n\r\n" + sdp))
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), dials
}

// Only an owner may give this node a camera: for anybody else nothing is dialled and nothing
// kept. What is kept can be read by the owner of the file alone, and survives.
func TestCameraOfAnOwner(t *testing.T) {
	a := homeOfOne(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := a.roster.Admit(a.key, trust.Candidate{Key: devices.CompressedKey(&key.PublicKey), Name: "Guest", Role: devices.RoleDevice, Class: devices.ClassPanel})
	if err != nil {
		t.Fatal(err)
	}
	at, dials := describing(t)
	address := "rtsp://viewer:canary@" + at + "/stream"
	if r, err := a.answerCamera(t.Context(), devices.Device{Node: other.Node}, address); err == nil || dials.Load() != 0 {
		t.Errorf("a device made it dial %d times: %+v", dials.Load(), r)
	}
	if r, err := a.answerCamera(t.Context(), devices.Device{Node: devices.NodeID{9}}, address); err == nil || dials.Load() != 0 {
		t.Errorf("a stranger made it dial %d times: %+v", dials.Load(), r)
	}
	r, err := a.answerCamera(t.Context(), devices.Device{Node: a.self}, address)
	if err != nil || r.Fault != "" || len(r.Tracks) != 1 || r.Tracks[0].Codec.Name != "H264" {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := a.answerCamera(t.Context(), devices.Device{Node: a.self}, "rtsp://viewer:canary@127.0.0.1:1/"); err != nil || !strings.Contains(r.Fault, "nothing listens") || strings.Contains(r.Fault, "canary") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, ok := a.speaks("front-door"); ok {
		t.Error("it speaks for what the home has not adopted")
	}
	if err := a.roster.SetForeign(a.key, devices.Adopted{Name: "Front door", Class: devices.ClassCamera, URI: "rtsp://" + at + "/stream", Speakers: []devices.NodeID{a.self}}); err != nil {
		t.Fatal(err)
	}
	if err := a.openCameras(); err != nil { // as after a restart
		t.Fatal(err)
	}
	s, ok := a.speaks("front-door")
	if !ok || !s.Behaviour.AutoAnswer || len(s.Capability.Video.Codecs) != 1 || s.Capability.Audio.Direction.Sends() {
		t.Errorf("%+v, %v", s, ok)
	}
	files, err := filepath.Glob(filepath.Join(a.cfg.Data, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(f); bytes.Contains(b, []byte("canary")) && (err != nil || info.Mode().Perm() != 0o600) {
			t.Errorf("%s holds the password and has the mode %v", filepath.Base(f), info.Mode())
		}
	}
}
