package rtsp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// rawServer is an RTSP server that a test writes byte by byte.
type rawServer struct {
	t     *testing.T
	ln    net.Listener
	dials atomic.Int32
	asked atomic.Int32 // requests
	wg    sync.WaitGroup
	ended chan struct{}
}

// talk is one connection to it.
type talk struct {
	*rawServer
	net.Conn
	in *bufio.Reader
}

func newRawServer(t *testing.T, serve func(*talk)) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{t: t, ln: ln, ended: make(chan struct{})}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.dials.Add(1)
			s.wg.Go(func() {
				defer func() { _ = conn.Close() }()
				done := make(chan struct{})
				s.wg.Go(func() {
					select {
					case <-s.ended:
						_ = conn.Close()
					case <-done:
					}
				})
				serve(&talk{s, conn, bufio.NewReader(conn)})
				close(done)
			})
		}
	})
	t.Cleanup(func() {
		close(s.ended)
		_ = ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *rawServer) url() string { return "rtsp://u:p@" + s.ln.Addr().String() + "/x" }

// next reads a request.
func (k *talk) next() (method, cseq, transport string) {
	for {
		b, err := k.in.Peek(1)
		if err != nil {
			return "", "", ""
		}
		if b[0] != '$' {
			break
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(k.in, head); err != nil {
			return "", "", ""
		}
		if _, err := k.in.Discard(int(binary.BigEndian.Uint16(head[2:]))); err != nil {
			return "", "", ""
		}
	}
	for first := true; ; first = false {
		line, err := k.in.ReadString('\n')
		if err != nil {
			return "", "", ""
		}
		line = strings.TrimSpace(line)
		switch name, value, _ := strings.Cut(line, ": "); {
		case first:
			method, _, _ = strings.Cut(line, " ")
		case line == "":
			k.asked.Add(1)
			return method, cseq, transport
		case strings.EqualFold(name, "CSeq"):
			cseq = value
		case strings.EqualFold(name, "Transport"):
			transport = value
		}
	}
}

func (k *talk) say(format string, args ...any) { _, _ = fmt.Fprintf(k, format, args...) }

// reply answers with headers and a body.
func (k *talk) reply(cseq, status, headers, body string) {
	k.say("RTSP/1.0 %s\r\nCSeq: %s\r\n%sContent-Length: %d\r\n\r\n%s", status, cseq, headers, len(body), body)
}

const goodSDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:v\r\n"

const sdpType = "Content-Type: application/sdp\r\n"

// politely answers as a camera does up to the first request of a method, and returns that.
func (k *talk) politely(until, sdp string) (cseq, transport string, ok bool) {
	for {
		method, cseq, transport := k.next()
		switch method {
		case "":
			return "", "", false
		case until:
			return cseq, transport, true
		case "OPTIONS":
			k.reply(cseq, "200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", "")
		case "DESCRIBE":
			k.reply(cseq, "200 OK", sdpType, sdp)
		case "SETUP":
			k.reply(cseq, "200 OK", "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "")
		case "PLAY":
			k.reply(cseq, "200 OK", "Session: 1\r\n", "")
		default:
			return "", "", false
		}
	}
}

// frame sends one interleaved frame (RFC 2326 section 10.12).
func (k *talk) frame(channel byte, b []byte) error {
	head := []byte{'$', channel, 0, 0}
	binary.BigEndian.PutUint16(head[2:], uint16(len(b))) //nolint:gosec // small
	_, err := k.Write(append(head, b...))
	return err
}

// packet is an RTP packet of a picture.
func packet(seq uint16, pt uint8, payload ...byte) []byte {
	b, _ := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: pt, SequenceNumber: seq, Timestamp: uint32(seq) * 3600, SSRC: 5, Marker: true}, Payload: payload}).Marshal()
	return b
}

// stay keeps the connection open without a word until the client goes.
func (k *talk) stay() { _, _ = io.Copy(io.Discard, k.in) }

// stream sends frames made by f, one each 5 ms, until the client goes.
func (k *talk) stream(f func(seq uint16) (byte, []byte)) {
	for seq := uint16(0); ; seq++ {
		ch, b := f(seq)
		if k.frame(ch, b) != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (k *talk) playing(sdp string) bool {
	cseq, _, ok := k.politely("PLAY", sdp)
	if ok {
		k.reply(cseq, "200 OK", "Session: 1\r\n", "")
	}
	return ok
}

func (k *talk) describing(answer func(cseq string)) {
	if cseq, _, ok := k.politely("DESCRIBE", ""); ok {
		answer(cseq)
		k.stay()
	}
}

func (k *talk) settingUp(answer func(cseq, transport string)) {
	if cseq, transport, ok := k.politely("SETUP", goodSDP); ok {
		answer(cseq, transport)
		k.stay()
	}
}

// badCamera is one way in which a camera misbehaves, and the sentence that its viewers read.
type badCamera struct {
	words string // of the end; empty: the view goes on
	udp   bool   // UDP is tried
	serve func(*talk)
}

func badCameras() map[string]badCamera {
	idr := func(seq uint16) (byte, []byte) { return 0, packet(seq, 96, 0x65, 1, 2, 3) }
	return map[string]badCamera{
		"says nothing":           {"does not answer in time", false, (*talk).stay},
		"closes at once":         {"gives no answer", false, func(*talk) {}},
		"resets at once":         {"gives no answer", false, func(k *talk) { _ = k.Conn.(*net.TCPConn).SetLinger(0) }},
		"sends garbage for ever": {"answer", false, func(k *talk) { _, _ = io.Copy(k, endless{"\x00\xffgarbage"}) }},
		"answers in HTTP":        {"does not answer in time", false, func(k *talk) { k.next(); k.say("HTTP/1.1 400 Bad Request\r\n\r\n"); k.stay() }},
		"answers byte by byte": {"does not answer in time", false, func(k *talk) {
			k.next()
			k.slowly("RTSP/1.0 200 OK\r\nCSeq: 1\r\nServer: " + strings.Repeat("x", 1000))
		}},
		"has headers for ever":    {"not as RTSP wants it", false, func(k *talk) { k.next(); k.say("RTSP/1.0 200 OK\r\n"); _, _ = io.Copy(k, endless{"X-A: b\r\n"}) }},
		"has a header of 1 MB":    {"not as RTSP wants it", false, func(k *talk) { k.next(); k.say("RTSP/1.0 200 OK\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20)) }},
		"has a strange status":    {"not as RTSP wants it", false, func(k *talk) { k.next(); k.say("RTSP/1.0 99999999999999999999 OK\r\n\r\n"); k.stay() }},
		"numbers answers wrongly": {"does not answer in time", false, func(k *talk) { k.wrongNumbers() }},
		"asks for OPTIONS only":   {"does not answer in time", false, func(k *talk) { _, _, _ = k.politely("DESCRIBE", ""); k.stay() }},
		"length below zero": {"not as RTSP wants it", false, func(k *talk) {
			k.describing(func(c string) { k.say("RTSP/1.0 200 OK\r\nCSeq: %s\r\n%sContent-Length: -5\r\n\r\nv=0", c, sdpType) })
		}},
		"length of 1 GB": {"not as RTSP wants it", false, func(k *talk) {
			k.describing(func(c string) {
				k.say("RTSP/1.0 200 OK\r\nCSeq: %s\r\n%sContent-Length: 1073741824\r\n\r\n", c, sdpType)
			})
		}},
		"length beyond the body": {"does not answer in time", false, func(k *talk) {
			k.describing(func(c string) {
				k.say("RTSP/1.0 200 OK\r\nCSeq: %s\r\n%sContent-Length: 5000\r\n\r\n%s", c, sdpType, goodSDP)
			})
		}},
		"length short of it": {"not", false, func(k *talk) {
			k.describing(func(c string) {
				k.say("RTSP/1.0 200 OK\r\nCSeq: %s\r\n%sContent-Length: 9\r\n\r\n%s", c, sdpType, goodSDP)
			})
		}},
		"401 without a method": {"not as RTSP wants it", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "401 Unauthorized", "", "") }) }},
		"401 for ever":         {"refuses this user name and password", false, func(k *talk) { k.refusing() }},
		"404":                  {"no stream at this address", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "404 Not Found", "", "") }) }},
		"leads to another host": {"another host", false, func(k *talk) {
			k.describing(func(c string) { k.reply(c, "302 Found", "Location: rtsp://127.0.0.2:9/x\r\n", "") })
		}},
		"leads to itself": {"another host", false, func(k *talk) {
			k.describing(func(c string) { k.reply(c, "302 Found", "Location: "+k.url()+"\r\n", "") })
		}},
		"leads nowhere": {"not as RTSP wants it", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "302 Found", "Location: %%%\r\n", "") }) }},
		"describes in HTML": {"not as RTSP wants it", false, func(k *talk) {
			k.describing(func(c string) { k.reply(c, "200 OK", "Content-Type: text/html\r\n", "<html>") })
		}},
		"describes garbage":       {"not as RTSP wants it", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "200 OK", sdpType, "\x01\x02v=0\r\nm=\r\n") }) }},
		"describes 10,000 medias": {"not as RTSP wants it", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "200 OK", sdpType, manyMedias(10000)) }) }},
		"describes 4,000 medias":  {"nothing that can be passed on", false, func(k *talk) { k.describing(func(c string) { k.reply(c, "200 OK", sdpType, manyMedias(4000)) }) }},
		"has no codec of ours": {"nothing that can be passed on", false, func(k *talk) {
			k.describing(func(c string) { k.reply(c, "200 OK", sdpType, strings.Replace(goodSDP, "H264", "JPEG", 1)) })
		}},
		"has changed its codec": {"call it again", false, func(k *talk) {
			k.describing(func(c string) {
				k.reply(c, "200 OK", sdpType, strings.NewReplacer("H264", "H265", "packetization-mode=1", "tx-mode=SRST").Replace(goodSDP))
			})
		}},
		"no answer to SETUP": {"does not answer in time", false, func(k *talk) { k.settingUp(func(string, string) {}) }},
		"SETUP with garbage": {"not as RTSP wants it", false, func(k *talk) {
			k.settingUp(func(c, _ string) { k.reply(c, "200 OK", "Session: 1\r\nTransport: ;;;=\r\n", "") })
		}},
		"SETUP on odd channels": {"not as RTSP wants it", false, func(k *talk) {
			k.settingUp(func(c, _ string) {
				k.reply(c, "200 OK", "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=0-5\r\n", "")
			})
		}},
		"SETUP on channel -1": {"not as RTSP wants it", false, func(k *talk) {
			k.settingUp(func(c, _ string) {
				k.reply(c, "200 OK", "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=-2--1\r\n", "")
			})
		}},
		"SETUP on port -5": {"not as RTSP wants it", true, func(k *talk) {
			k.settingUp(func(c, _ string) {
				k.reply(c, "200 OK", "Session: 1\r\nTransport: RTP/AVP;unicast;server_port=-5--4\r\n", "")
			})
		}},
		"UDP that never comes": {"nothing that can be used", true, func(k *talk) { k.silentUDP() }},
		"refuses PLAY":         {"RTSP status 454", false, func(k *talk) { k.refusePlay() }},
		"plays nothing":        {"camera", false, func(k *talk) { k.playing(goodSDP); k.stay() }},
		"plays before PLAY":    {"not as RTSP wants it", false, func(k *talk) { k.settingUp(func(string, string) { k.stream(idr) }) }},
		"another payload type": {"nothing that can be used", false, func(k *talk) {
			k.playing(goodSDP)
			k.stream(func(s uint16) (byte, []byte) { return 0, packet(s, 33, 1, 2, 3) })
		}},
		"unknown channels": {"the camera s", false, func(k *talk) {
			k.playing(goodSDP)
			k.stream(func(s uint16) (byte, []byte) { return 77, packet(s, 96, 0x65, 1) })
		}},
		"broken RTP": {"nothing that can be used", false, func(k *talk) {
			k.playing(goodSDP)
			k.stream(func(s uint16) (byte, []byte) { return byte(s) & 1, bytes.Repeat([]byte{0x9f}, int(s%9)) })
		}},
		"a frame that ends early": {"camera", false, func(k *talk) { k.playing(goodSDP); k.say("$\x00\xff\xffshort"); k.stay() }},
		"floods with requests": {"not as RTSP wants it", false, func(k *talk) {
			k.playing(goodSDP)
			_, _ = io.Copy(k, endless{"REDIRECT rtsp://127.0.0.2/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"})
		}},
		"resets in mid-stream":   {"", false, func(k *talk) { k.resetting(idr) }},
		"never lets go":          {"", false, func(k *talk) { k.playing(goodSDP); k.stream(idr) }},
		"reads no more":          {"", false, func(k *talk) { k.playing(goodSDP); k.deaf(idr) }},
		"a keepalive of nothing": {"", false, func(k *talk) { k.strangeSession("18446744073709551", idr) }},
		"a keepalive of zero":    {"", false, func(k *talk) { k.strangeSession("0", idr) }},
		"changes in mid-stream": {"", false, func(k *talk) {
			k.playing(goodSDP)
			k.stream(func(s uint16) (byte, []byte) { return 0, packet(s, 96+uint8(s%2), 0x65, byte(s)) })
		}},
	}
}

type endless struct{ text string }

func (e endless) Read(p []byte) (n int, _ error) {
	for n+len(e.text) <= len(p) {
		n += copy(p[n:], e.text)
	}
	return n, nil
}

func (k *talk) slowly(s string) {
	for _, b := range []byte(s) {
		if _, err := k.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (k *talk) wrongNumbers() {
	for {
		if m, _, _ := k.next(); m == "" {
			return
		}
		k.reply("4711", "200 OK", "", "")
	}
}

func (k *talk) refusing() {
	for {
		m, c, _ := k.next()
		switch m {
		case "":
			return
		case "OPTIONS":
			k.reply(c, "200 OK", "", "")
		default:
			k.reply(c, "401 Unauthorized", `WWW-Authenticate: Digest realm="r", nonce="n"`+"\r\n", "")
		}
	}
}

func (k *talk) refusePlay() {
	if c, _, ok := k.politely("PLAY", goodSDP); ok {
		k.reply(c, "454 Session Not Found", "", "")
		k.stay()
	}
}

func (k *talk) silentUDP() {
	for {
		c, transport, ok := k.politely("SETUP", goodSDP)
		if !ok {
			return
		}
		if strings.Contains(transport, "TCP") {
			k.reply(c, "200 OK", "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "")
		} else {
			k.reply(c, "200 OK", "Session: 1\r\nTransport: RTP/AVP;unicast;server_port=6970-6971\r\n", "")
		}
	}
}

func (k *talk) resetting(f func(uint16) (byte, []byte)) {
	if !k.playing(goodSDP) {
		return
	}
	for seq := range uint16(10) {
		ch, b := f(seq)
		_ = k.frame(ch, b)
	}
	time.Sleep(10 * time.Millisecond)
	_ = k.Conn.(*net.TCPConn).SetLinger(0)
}

// deaf sends on but reads nothing, so that a TEARDOWN may find no room.
func (k *talk) deaf(f func(uint16) (byte, []byte)) {
	_ = k.Conn.(*net.TCPConn).SetReadBuffer(1)
	k.stream(f)
}

func (k *talk) strangeSession(timeout string, f func(uint16) (byte, []byte)) {
	c, _, ok := k.politely("SETUP", goodSDP)
	if !ok {
		return
	}
	k.reply(c, "200 OK", "Session: 1;timeout="+timeout+"\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "")
	if !k.playing(goodSDP) {
		return
	}
	k.wg.Go(func() {
		for {
			if m, _, _ := k.next(); m == "" {
				return
			}
		}
	})
	k.stream(f)
}

func manyMedias(n int) string {
	return "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n" + strings.Repeat("m=video 0 RTP/AVP 26\r\n", n)
}

// badTiming makes what takes seconds with a real camera quick.
func badTiming() bounds {
	return bounds{patience: 900 * time.Millisecond, first: 20 * time.Millisecond, most: 200 * time.Millisecond, reset: time.Minute, setup: 700 * time.Millisecond, silence: 2 * time.Second}
}

var onlyVideo = []sessions.Track{{Kind: "video", Codec: profiles.Codec{Name: "H264", ClockRate: 90000, Fmtp: "packetization-mode=1"}}}

// However a camera misbehaves, the view ends with a sentence or goes on, the camera is
// dialled a few times with growing pauses, the end takes less than a second, and nothing
// is left behind.
func TestMisbehavingCameras(t *testing.T) {
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cases := badCameras()
	if len(cases) < 40 {
		t.Fatalf("only %d", len(cases))
	}
	t.Run("all", func(t *testing.T) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				misbehave(t, c)
			})
		}
	})
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 { //nolint:gosec // small
		t.Errorf("%d bytes are left", grown)
	}
	if taken := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && taken > 128<<20 {
		t.Errorf("all of them together took %d bytes", taken)
	}
}

func misbehave(t *testing.T, c badCamera) {
	s := newRawServer(t, c.serve)
	cam := &Camera{URL: s.url(), Tracks: onlyVideo}
	cam.tcp.Store(!c.udp)
	var wg sync.WaitGroup
	ctx, cancel := contextWithCancel(t)
	src := openCamera(ctx, cam, badTiming(), &wg, slog.New(slog.DiscardHandler))
	var got atomic.Int32
	view := src.Subscribe(outlet(func(string, *rtp.Packet) { got.Add(1) }), &sessions.Position{})
	switch {
	case c.words != "":
		select {
		case <-src.Done():
		case <-time.After(12 * time.Second):
			t.Fatal("no end")
		}
		if err := src.Err(); err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("its viewers read %q", err)
		}
	default:
		waitFor(t, "the picture goes on", func() bool { return got.Load() > 100 }) // half a second, or ten dials
		select {
		case <-src.Done():
			t.Errorf("the view ended: %v", src.Err())
		default:
		}
	}
	start := time.Now()
	view.Cancel()
	cancel()
	wg.Wait()
	if took := time.Since(start); took > time.Second {
		t.Errorf("the camera was let go after %v", took)
	}
	if n := s.dials.Load(); n > 16 {
		t.Errorf("%d dials", n)
	}
	if n := s.asked.Load(); n > 64 {
		t.Errorf("%d requests", n)
	}
}
