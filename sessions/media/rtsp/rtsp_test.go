package rtsp

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/auth"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}

// fakeCamera is a well-behaved RTSP server whose packets the test makes.
type fakeCamera struct {
	t       *testing.T
	addr    string
	formats []format.Format
	udp     bool
	tls     *tls.Config // nil: without
	asked   int         // descriptions
	server  *gortsplib.Server
	stream  *gortsplib.ServerStream
	desc    *description.Session

	mu      sync.Mutex
	opened  int
	playing int
	how     string // transport of the newest SETUP
}

const testRealm, testNonce = "camera", "0123456789abcdef0123456789abcdef"

func (c *fakeCamera) refusal(req *base.Request) *base.Response {
	methods := []auth.ValidateMethod{auth.ValidateMethodDigestMD5}
	if auth.Validate(req, "u", "p", methods, testRealm, testNonce) == nil {
		return nil
	}
	return &base.Response{StatusCode: base.StatusUnauthorized, Header: base.Header{"WWW-Authenticate": auth.GenerateWWWAuthenticate(methods, testRealm, testNonce)}}
}

func (c *fakeCamera) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	if res := c.refusal(ctx.Request); res != nil {
		return res, nil, nil
	}
	c.mu.Lock()
	c.asked++
	c.mu.Unlock()
	return &base.Response{StatusCode: base.StatusOK}, c.streamNow(), nil
}

func (c *fakeCamera) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	c.mu.Lock()
	c.how = ctx.Transport.String()
	c.mu.Unlock()
	return &base.Response{StatusCode: base.StatusOK}, c.streamNow(), nil
}

func (c *fakeCamera) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	c.mu.Lock()
	c.opened++
	c.playing++
	c.mu.Unlock()
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (c *fakeCamera) OnSessionClose(*gortsplib.ServerHandlerOnSessionCloseCtx) {
	c.mu.Lock()
	c.playing--
	c.mu.Unlock()
}

func (c *fakeCamera) state() (opened, playing int, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened, c.playing, c.how
}

func newFakeCamera(t *testing.T, udp bool, formats ...format.Format) *fakeCamera {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &fakeCamera{t: t, addr: ln.Addr().String(), formats: formats, udp: udp}
	_ = ln.Close()
	c.start()
	t.Cleanup(c.stop)
	return c
}

func (c *fakeCamera) start() {
	c.t.Helper()
	c.server = &gortsplib.Server{Handler: c, RTSPAddress: c.addr, TLSConfig: c.tls}
	if c.udp {
		a, b, err := portPair()
		if err != nil {
			c.t.Fatal(err)
		}
		c.server.UDPRTPAddress, c.server.UDPRTCPAddress = fmt.Sprintf("127.0.0.1:%d", a), fmt.Sprintf("127.0.0.1:%d", b)
	}
	if err := c.server.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.desc = &description.Session{}
	for _, f := range c.formats {
		kind := description.MediaTypeVideo
		if f.Codec() != "H264" && f.Codec() != "H265" {
			kind = description.MediaTypeAudio
		}
		c.desc.Medias = append(c.desc.Medias, &description.Media{Type: kind, Formats: []format.Format{f}})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = gortsplib.NewServerStream(c.server, c.desc)
}

func (c *fakeCamera) stop() {
	c.streamNow().Close()
	c.server.Close()
}

func (c *fakeCamera) streamNow() *gortsplib.ServerStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream
}

func (c *fakeCamera) url() string { return "rtsp://u:p@" + c.addr + "/stream" }

// send gives one packet of media i to whoever plays.
func (c *fakeCamera) send(i int, seq uint16, stamp uint32, marker bool, payload ...byte) {
	p := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: c.formats[i].PayloadType(), SequenceNumber: seq, Timestamp: stamp, SSRC: 77, Marker: marker}, Payload: payload}
	if err := c.streamNow().WritePacketRTP(c.desc.Medias[i], p); err != nil {
		c.t.Error(err)
	}
}

func h264Format() *format.H264 {
	return &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: []byte{0x67, 0x42, 0xc0, 0x28, 0xd9, 0, 0x78, 2, 0x27, 0xe5, 0x84, 0, 0, 3, 0, 4, 0, 0, 3, 0, 0xf0, 0x3c, 0x60, 0xc9, 0x20}, PPS: []byte{0x68, 1, 2, 3}}
}

func pcmu() *format.G711 {
	return &format.G711{PayloadTyp: 0, MULaw: true, SampleRate: 8000, ChannelCount: 1}
}

// viewer keeps what one viewer gets.
type cameraViewer struct {
	mu   sync.Mutex
	got  map[string][]rtp.Packet
	stop func()
}

func view(src sessions.Source) *cameraViewer {
	v := &cameraViewer{got: map[string][]rtp.Packet{}}
	v.stop = src.Subscribe(outlet(func(kind string, p *rtp.Packet) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.got[kind] = append(v.got[kind], *p)
	}), &sessions.Position{}).Cancel
	return v
}

func (v *cameraViewer) of(kind string) []rtp.Packet {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]rtp.Packet(nil), v.got[kind]...)
}

// One connection serves all viewers, by UDP where it works and TCP where not; it begins with
// the first and ends with the last one; the password goes by digest.
func TestCameraIsOpenedOnce(t *testing.T) {
	for name, udp := range map[string]bool{"UDP": true, "TCP": false} {
		t.Run(name, func(t *testing.T) {
			c := newFakeCamera(t, udp, h264Format(), pcmu())
			d, err := Describe(t.Context(), c.url(), nil)
			if err != nil || len(d.Tracks) != 2 || d.Left != "" {
				t.Fatalf("%+v, %v", d, err)
			}
			if opened, _, how := c.state(); opened != 0 || how != "" {
				t.Error("a description opened the camera")
			}
			box := media.NewBox(media.SourceSpec{Live: &Camera{URL: c.url(), Tracks: d.Tracks}}, media.SinkSpec{}, nil)
			var views []*cameraViewer
			var frees []func()
			for range 10 {
				src, free, err := box.OpenSource(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				views, frees = append(views, view(src)), append(frees, free)
			}
			waitFor(t, "it plays", func() bool { _, p, _ := c.state(); return p == 1 })
			for i := range uint16(20) {
				c.send(0, i, uint32(i)*3600, true, 0x65, byte(i), 1, 2)
				c.send(1, i, uint32(i)*160, false, 1, 2, 3)
				for _, v := range views { // a group of pictures that is over is not kept for who is late
					waitFor(t, "every viewer has it all", func() bool { return len(v.of("video")) >= 3*int(i+1) && len(v.of("audio")) > int(i) }) // each key frame with two parameter sets
				}
			}
			if opened, playing, how := c.state(); opened != 1 || playing != 1 || how != name {
				t.Errorf("opened %d times, %d play, by %s", opened, playing, how)
			}
			start := time.Now()
			for i, v := range views {
				v.stop()
				frees[i]()
			}
			waitFor(t, "it is closed", func() bool { _, p, _ := c.state(); return p == 0 })
			if took := time.Since(start); took > time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	}
}

// A camera that ended and comes back goes on in the same stream: numbers without a gap, time
// going on, and a key frame that stands for itself.
func TestCameraComesBack(t *testing.T) {
	c := newFakeCamera(t, false, h264Format())
	d, err := Describe(t.Context(), c.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := contextWithCancel(t)
	timing := badTiming()
	timing.patience = 5 * time.Second
	src := openCamera(ctx, &Camera{URL: c.url(), Tracks: d.Tracks}, timing, &wg, slog.New(slog.DiscardHandler))
	v := view(src)
	play := func(first uint16, stamp uint32) {
		waitFor(t, "it plays", func() bool { _, p, _ := c.state(); return p == 1 })
		for i := range uint16(5) {
			c.send(0, first+i, stamp+uint32(i)*3600, true, 0x65-byte(min(i, 1))*4, byte(i), 1)
		}
	}
	play(100, 5000)
	waitFor(t, "the first part", func() bool { return len(v.of("video")) == 7 })
	c.stop()
	waitFor(t, "it is gone", func() bool { _, p, _ := c.state(); return p == 0 })
	c.start()
	play(9, 400)
	waitFor(t, "the second part", func() bool { return len(v.of("video")) == 14 })
	got := v.of("video")
	for i := 1; i < len(got); i++ {
		if got[i].SequenceNumber != got[i-1].SequenceNumber+1 {
			t.Errorf("packet %d has number %d after %d", i, got[i].SequenceNumber, got[i-1].SequenceNumber)
		}
		if d := int32(got[i].Timestamp - got[i-1].Timestamp); d < 0 || d > 5*90000 { //nolint:gosec // modular
			t.Errorf("packet %d is %d ticks after the one before", i, d)
		}
	}
	if types := fmt.Sprint(got[7].Payload[0]&0x1f, got[8].Payload[0]&0x1f, got[9].Payload[0]&0x1f); types != "7 8 5" {
		t.Errorf("the second part begins with %s", types)
	}
	v.stop()
	cancel()
	wg.Wait()
}

// What cannot be passed on is left out and told; addresses that are none are refused
// without repeating the password.
func TestDescribe(t *testing.T) {
	c := newFakeCamera(t, false, &format.MJPEG{}, h264Format(), &format.G711{PayloadTyp: 97, SampleRate: 16000, ChannelCount: 2}, &format.Opus{PayloadTyp: 98, ChannelCount: 2})
	d, err := Describe(t.Context(), c.url(), nil)
	if err != nil || len(d.Tracks) != 2 || d.Tracks[1].Codec.Name != "opus" || d.Left != "M-JPEG, G711" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := Describe(t.Context(), strings.Replace(c.url(), "u:p", "u:wrong", 1), nil); err == nil || !strings.Contains(err.Error(), "refuses this user name") {
		t.Errorf("a wrong password: %v", err)
	}
	for _, bad := range []string{"", "rtsp://", "http://u:hush@h/", "rtsp:///x", "rtsp://u:hush@h/#x", "rtsp://u:hush@h:1:2/", "rtsp://u:hush@h/" + strings.Repeat("x", 400)} {
		if _, err := Describe(t.Context(), bad, nil); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if p, err := PublicURL("rtsp://u:hush@192.0.2.9:8554/a?b=c"); err != nil || p != "rtsp://192.0.2.9:8554/a?b=c" {
		t.Errorf("%q, %v", p, err)
	}
}
