package rtsp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// Bounds of one connection. The library itself refuses more than 255 headers, lines above
// 2 kB and bodies above 128 kB.
const (
	// setupTime is how long a camera may take from the dial to the answer to PLAY, however
	// slowly it dribbles.
	setupTime = 10 * time.Second
	// silenceTime: a camera that plays but sends nothing for this long is dialled again.
	silenceTime = 8 * time.Second
	// udpTrial is how long UDP is waited for before the same over TCP: a firewall tells nothing.
	udpTrial = 1500 * time.Millisecond
	// farewell bounds the TEARDOWN to a camera that reads no more: it is to be free within 1 s.
	farewell = 500 * time.Millisecond
	// maxDials of one connection: itself, TCP after UDP, and one redirect of each.
	maxDials = 4
	// maxMedias of a description that are looked at: cameras have two or three.
	maxMedias = 32
	// maxKeepalive: some cameras say nonsense; the library would overflow or spin.
	minKeepalive, maxKeepalive = 5, 3600 // s
	// maxURL bounds an address, in bytes; it goes into the roster without the password.
	maxURL = 160
)

// Why a camera cannot be used; final ones are not tried again by themselves.
var (
	ErrURL      = errors.New("that is no address of an RTSP camera; it looks like rtsp://user:password@192.0.2.9/stream, or rtsps:// for TLS")
	ErrPassword = errors.New("the camera refuses this user name and password")
	ErrAsks     = errors.New("the camera asks for a user name and a password")
	ErrPath     = errors.New("the camera has no stream at this address; look the path up in its manual")
	ErrCodec    = errors.New("the camera sends nothing that can be passed on")
	// ErrCertificate stands before the new one and what to do; a BYE carries 200 bytes of it.
	ErrCertificate  = errors.New("the camera has another certificate than it was adopted with")
	errRedirect     = errors.New("the camera sends its viewers to another host, which is not followed")
	errCameraSilent = errors.New("the camera sends nothing that can be used")
	errSetupTime    = errors.New("the camera takes connections but does not answer in time")
)

func final(err error) bool {
	for _, e := range []error{ErrURL, ErrPassword, ErrAsks, ErrPath, ErrCodec, ErrCertificate, errChanged, errRedirect} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// conn is one RTSP connection. Its methods are called one after the other; close from
// anywhere.
type conn struct {
	client *gortsplib.Client
	url    *base.URL
	tcp    *atomic.Bool
	timing bounds
	stop   func() bool // of the wait for ctx
	timer  *time.Timer // of the setup
	late   atomic.Bool
	dials  atomic.Int32
	other  atomic.Bool // a redirect led elsewhere
	spoke  atomic.Bool // it gave an answer
	base   *base.URL
	opus   encoder
	pin    string                 // fingerprint that the camera must have; empty: it is not known yet
	seen   atomic.Pointer[string] // fingerprint that it has
}

// encoder finds what makes Opus here, or says why nothing does.
type encoder func(context.Context) (args []string, err error)

// parseCameraURL accepts rtsp:// and rtsps:// with a host, and nothing that means something else later.
func parseCameraURL(raw string) (*base.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "rtsp" && u.Scheme != "rtsps" || u.Hostname() == "" || u.Fragment != "" || len(raw) > 2*maxURL {
		return nil, ErrURL // the text may hold a password: it is not repeated
	}
	b, err := base.ParseURL(raw)
	if err != nil {
		return nil, ErrURL
	}
	return b, nil
}

// PublicURL is a camera's address without user name and password, fit for everybody's eyes.
func PublicURL(raw string) (string, error) {
	u, err := parseCameraURL(raw)
	if err != nil {
		return "", err
	}
	c := *u
	c.User = nil
	if s := c.String(); len(s) <= maxURL {
		return s, nil
	}
	return "", ErrURL
}

// dialCamera begins a connection; tcp says that UDP is known not to come through, and is told
// so. pin is the fingerprint of the certificate that a camera with TLS must have, if known.
func dialCamera(ctx context.Context, raw, pin string, timing bounds, tcp *atomic.Bool, opus encoder) (*conn, error) {
	u, err := parseCameraURL(raw)
	if err != nil {
		return nil, err
	}
	c := &conn{url: u, tcp: tcp, timing: timing, opus: opus, pin: pin}
	c.client = &gortsplib.Client{
		ReadTimeout: timing.silence, WriteTimeout: farewell, InitialUDPReadTimeout: min(udpTrial, timing.silence/2), UserAgent: "Hallway",
		AnyPortEnable: true, // some cameras do not say from where they send
		DialContext:   c.dial, OnTransportSwitch: func(error) { tcp.Store(true) },
		OnResponse: func(res *base.Response) {
			c.spoke.Store(true)
			tameResponse(res)
			c.ledEncrypted(res)
		},
		OnPacketLost: func(error) {}, OnDecodeError: func(error) {}, // by default it logs
	}
	if c.encrypted() {
		tcp.Store(true) // UDP would be in the clear
	}
	if tcp.Load() {
		t := gortsplib.TransportTCP
		c.client.Transport = &t
	}
	if err := c.client.Start("rtsp", hostOf(u)); err != nil {
		return nil, err
	}
	c.stop = context.AfterFunc(ctx, c.client.Close)
	c.timer = time.AfterFunc(timing.setup, func() {
		c.late.Store(true)
		c.client.Close()
	})
	return c, nil
}

// dial goes to the camera and nowhere else, and a few times only: a redirect to itself would
// be followed for ever.
func (c *conn) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || !strings.EqualFold(host, c.url.Hostname()) { // check: redirect to another host
		c.other.Store(true)
		return nil, errRedirect
	}
	if c.dials.Add(1) > maxDials {
		return nil, errRedirect
	}
	plain, err := (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if c.encrypted() { // check: TLS wherever a redirect leads
		return c.secure(ctx, plain)
	}
	return plain, nil
}

// tameResponse corrects what the library would take at its word.
func tameResponse(res *base.Response) {
	v, ok := res.Header["Session"]
	if !ok || len(v) != 1 {
		return
	}
	id, params, _ := strings.Cut(v[0], ";")
	for p := range strings.SplitSeq(params, ";") {
		var n int
		if t, ok := strings.CutPrefix(strings.TrimSpace(p), "timeout="); ok {
			if _, err := fmt.Sscanf(t, "%d", &n); err != nil || n < minKeepalive || n > maxKeepalive { // check: keepalive period
				res.Header["Session"] = base.HeaderValue{id}
				return
			}
		}
	}
}

// found is one stream of a camera that can be passed on.
type found struct {
	track sessions.Track
	media *description.Media
	form  format.Format
	sets  [][]byte // parameter sets of the picture
	opus  []string // what makes Opus of it; nil: it is passed on as it is
}

// describe asks what there is; left says what is left out, in words.
func (c *conn) describe(ctx context.Context) (streams []found, left []string, err error) {
	desc, _, err := c.client.Describe(c.url)
	if err != nil {
		return nil, nil, c.words(err)
	}
	c.base = desc.BaseURL
	kinds := map[string]bool{}
	for _, m := range desc.Medias[:min(len(desc.Medias), maxMedias)] {
		if m.IsBackChannel {
			continue
		}
		for _, f := range m.Formats {
			s, ok := passable(f)
			if ok && kinds[s.track.Kind] {
				continue
			}
			if aac, is := f.(*format.MPEG4Audio); is && plainAAC(aac) && !kinds["audio"] {
				if s, err = c.transcoded(ctx, aac); err != nil {
					left = append(left, err.Error())
					continue
				}
				ok = true
			}
			if !ok {
				left = append(left, f.Codec())
				continue
			}
			kinds[s.track.Kind] = true
			s.media = m
			m.Formats = []format.Format{f} // the library would prepare for all of them
			streams = append(streams, s)
			break
		}
	}
	left = left[:min(len(left), maxMedias)]
	if len(streams) == 0 {
		if len(left) == 0 {
			return nil, nil, ErrCodec
		}
		return nil, left, fmt.Errorf("%w: it has %s; set it to H.264 or H.265, and its sound to G.711 or Opus", ErrCodec, plainWords(left))
	}
	return streams, left, nil
}

// plainWords joins what is left out: the library's names and our sentences, not the camera's text.
func plainWords(s []string) string { return strings.Join(s[:min(len(s), 4)], ", ") }

// passable says how a format travels in a call, if it can.
func passable(f format.Format) (found, bool) {
	track := func(kind, name string, rate uint32, ch uint16) found { return foundAs(f, kind, name, rate, ch) }
	switch f := f.(type) {
	case *format.H264:
		s := track("video", "H264", 90000, 0)
		s.track.Codec.Fmtp = "packetization-mode=1" // what is sent on is cut so
		s.sets = [][]byte{f.SPS, f.PPS}
		return s, true
	case *format.H265:
		s := track("video", "H265", 90000, 0)
		s.sets = [][]byte{f.VPS, f.SPS, f.PPS}
		return s, f.MaxDONDiff == 0 // RFC 7798 section 4.4: with it packets are numbered otherwise
	case *format.Opus:
		return track("audio", "opus", 48000, 2), true
	case *format.G711:
		name := "PCMA"
		if f.MULaw {
			name = "PCMU"
		}
		return track("audio", name, 8000, 1), f.SampleRate == 8000 && f.ChannelCount == 1
	case *format.G722:
		return track("audio", "G722", 8000, 1), true
	}
	return found{}, false
}

func foundAs(f format.Format, kind, name string, rate uint32, channels uint16) found {
	return found{track: sessions.Track{Kind: kind, Codec: profiles.Codec{Name: name, ClockRate: rate, Channels: channels}}, form: f}
}

// setup asks for one stream, by UDP first.
func (c *conn) setup(f found, receive func(*rtp.Packet)) error {
	rtpPort, rtcpPort := 0, 0
	if !c.tcp.Load() {
		var err error
		if rtpPort, rtcpPort, err = portPair(); err != nil {
			c.tcp.Store(true)
			return fmt.Errorf("no UDP ports are free here, so TCP is next: %w", err)
		}
	}
	if _, err := c.client.Setup(c.base, f.media, rtpPort, rtcpPort); err != nil {
		return c.words(err)
	}
	c.client.OnPacketRTP(f.media, f.form, receive)
	return nil
}

// play reads until the connection ends, and says why it did. A camera that talks but sends
// nothing that can be used, of which silent tells, is left after a while.
func (c *conn) play(silent func() time.Duration) error {
	if _, err := c.client.Play(nil); err != nil {
		return c.words(err)
	}
	if !c.timer.Stop() {
		return errSetupTime
	}
	began := time.Now()
	var why error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		why = c.client.Wait()
	}()
	look := time.NewTicker(c.timing.silence / 2)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return c.words(why)
		case <-look.C:
			if min(silent(), time.Since(began)) > c.timing.silence {
				c.client.Close()
				<-ended
				return errCameraSilent
			}
		}
	}
}

func (c *conn) close() {
	c.stop()
	c.timer.Stop()
	c.client.Close()
}

// portPair finds two free UDP ports, the first one even (RFC 3550 section 11). The library
// would look for them until it finds some, which without file descriptors is never.
func portPair() (rtpPort, rtcpPort int, err error) {
	for range 20 {
		var a, b net.PacketConn
		if a, err = net.ListenPacket("udp", ":0"); err != nil {
			return 0, 0, err
		}
		port := a.LocalAddr().(*net.UDPAddr).Port
		if port%2 == 0 {
			if b, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port+1)); err == nil {
				_ = b.Close()
			}
		} else {
			err = errors.New("no even port")
		}
		_ = a.Close()
		if err == nil {
			return port, port + 1, nil
		}
	}
	return 0, 0, err
}

// Description is what a camera says about itself.
type Description struct {
	Tracks []sessions.Track
	Left   string // codecs that are left out, for people; empty if none
	// Certificate is the SHA-256 of its certificate in hex; empty without TLS.
	Certificate string `json:",omitempty"`
}

// Describe asks a camera what it sends, without opening it: no SETUP and no PLAY.
// Errors are sentences; ErrPassword and its like say which.
// encoders says what this machine can do for a camera whose sound no call takes.
func Describe(ctx context.Context, rawURL string, encoders *media.Encoders) (Description, error) {
	c, err := dialCamera(ctx, rawURL, "", defaultBounds(), &atomic.Bool{}, opusBy(encoders))
	if err != nil {
		return Description{}, err
	}
	defer c.close()
	streams, left, err := c.describe(ctx)
	if err != nil {
		return Description{}, err
	}
	d := Description{Left: plainWords(left)}
	if seen := c.seen.Load(); seen != nil {
		d.Certificate = *seen
	}
	for _, s := range streams {
		d.Tracks = append(d.Tracks, s.track)
	}
	return d, nil
}
