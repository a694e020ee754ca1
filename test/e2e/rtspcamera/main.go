// Command rtspcamera is an RTSP camera for tests: it plays a file in a loop, H.264 or H.265,
// with AAC or a tone in G.711, over TLS if it is to, asks for a password by digest, and prints a line of JSON for whatever
// is done to it, so that a test sees when it is opened and by how many.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/auth"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/g711"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/pion/rtp"
)

const frameTime = 40 * time.Millisecond // 25 a second

type camera struct {
	server         *gortsplib.Server
	stream         *gortsplib.ServerStream
	user, password string

	mu      sync.Mutex
	playing int
}

// event is one line of the output.
type event struct {
	Event   string `json:"event"` // open, describe, setup, play, close
	At      int64  `json:"at"`    // Unix time, ns
	Playing int    `json:"playing"`
}

func (c *camera) tell(what string, playing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.playing += playing
	_ = json.NewEncoder(os.Stdout).Encode(event{what, time.Now().UnixNano(), c.playing})
}

func (c *camera) OnConnOpen(*gortsplib.ServerHandlerOnConnOpenCtx) { c.tell("open", 0) }

// realm and nonce of the digest (RFC 2069); one nonce for all is good enough for a test.
const realm, nonce = "camera", "0123456789abcdef0123456789abcdef"

// refusal asks for the password, or is nil if the request brought it.
func (c *camera) refusal(req *base.Request) *base.Response {
	methods := []auth.ValidateMethod{auth.ValidateMethodDigestMD5}
	if c.user == "" || auth.Validate(req, c.user, c.password, methods, realm, nonce) == nil {
		return nil
	}
	return &base.Response{StatusCode: base.StatusUnauthorized, Header: base.Header{"WWW-Authenticate": auth.GenerateWWWAuthenticate(methods, realm, nonce)}}
}

// OnDescribe is part of the library's handler, as are those below.
func (c *camera) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) { //nolint:unparam // the library wants the error
	if res := c.refusal(ctx.Request); res != nil {
		return res, nil, nil
	}
	if ctx.Path != "/stream" {
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	c.tell("describe", 0)
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

func (c *camera) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) { //nolint:unparam // the library wants the error
	if res := c.refusal(ctx.Request); res != nil {
		return res, nil, nil
	}
	c.tell("setup "+ctx.Transport.String(), 0)
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

func (c *camera) OnPlay(ctx *gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) { //nolint:unparam // the library wants the error
	ctx.Session.SetUserData(true)
	c.tell("play", 1)
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (c *camera) OnSessionClose(ctx *gortsplib.ServerHandlerOnSessionCloseCtx) {
	if ctx.Session.UserData() != nil {
		c.tell("close", -1)
	}
}

// options are what the test asks for.
type options struct {
	listen, h264, h265, aac, user, password, cert, key string
	udp                                                bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8554", "where RTSP is served")
	flag.StringVar(&o.h264, "h264", "", "H.264 with access unit delimiters, 25 pictures a second")
	flag.StringVar(&o.h265, "h265", "", "the same in H.265")
	flag.StringVar(&o.aac, "aac", "", "ADTS at 16 kHz in mono, whose first frame is before the first picture; else a tone in G.711")
	flag.StringVar(&o.user, "user", "", "user name")
	flag.StringVar(&o.password, "password", "", "password")
	flag.StringVar(&o.cert, "cert", "", "certificate for TLS, in PEM")
	flag.StringVar(&o.key, "key", "", "and its key")
	flag.BoolVar(&o.udp, "udp", true, "take UDP, too")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	v, err := o.picture()
	if err != nil {
		return err
	}
	c := &camera{user: o.user, password: o.password}
	c.server = &gortsplib.Server{Handler: c, RTSPAddress: o.listen}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return err
		}
		c.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	} else if o.udp {
		c.server.UDPRTPAddress, c.server.UDPRTCPAddress = ":8000", ":8001"
	}
	var frames [][]byte
	var audio format.Format = &format.G711{PayloadTyp: 0, MULaw: true, SampleRate: 8000, ChannelCount: 1}
	if o.aac != "" {
		if frames, audio, err = loadAAC(o.aac); err != nil {
			return err
		}
	}
	if err := c.server.Start(); err != nil {
		return err
	}
	desc := &description.Session{Medias: []*description.Media{
		{Type: description.MediaTypeVideo, Formats: []format.Format{v.form}}, {Type: description.MediaTypeAudio, Formats: []format.Format{audio}},
	}}
	c.stream = gortsplib.NewServerStream(c.server, desc)
	c.tell("ready", 0)
	start := time.Now()
	ended := make(chan error, 2)
	go func() { ended <- c.play(desc.Medias[0], v, start) }()
	if frames != nil {
		go func() { ended <- c.speak(desc.Medias[1], audio, frames, start) }()
	} else {
		go func() { ended <- c.hum(desc.Medias[1], start) }()
	}
	return <-ended
}

// play sends pictures in real time, for ever.
func (c *camera) play(m *description.Media, v picture, start time.Time) error {
	for n := 0; ; n++ {
		at := start.Add(time.Duration(n) * frameTime)
		time.Sleep(time.Until(at))
		packets, err := v.encode(v.pictures[n%len(v.pictures)])
		if err != nil {
			return err
		}
		for _, p := range packets {
			p.Timestamp = uint32(n) * 3600 //nolint:gosec // wraps
			if err := c.stream.WritePacketRTPWithNTP(m, p, at); err != nil {
				return err
			}
		}
	}
}

// hum sends a tone in G.711.
func (c *camera) hum(m *description.Media, start time.Time) error {
	for n := 0; ; n++ {
		at := start.Add(time.Duration(n) * frameTime / 2)
		time.Sleep(time.Until(at))
		p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(n), Timestamp: uint32(n) * 160, SSRC: 7}, Payload: tone(n)} //nolint:gosec // wraps
		if err := c.stream.WritePacketRTPWithNTP(m, p, at); err != nil {
			return err
		}
	}
}

// speak sends AAC, each frame when its last sample was heard, as a camera can.
func (c *camera) speak(m *description.Media, f format.Format, frames [][]byte, start time.Time) error {
	enc, err := f.(*format.MPEG4Audio).CreateEncoder()
	if err != nil {
		return err
	}
	const frame = 1024 * time.Second / aacRate
	for n := 0; ; n++ {
		at := start.Add(time.Duration(n) * frame)
		time.Sleep(time.Until(at.Add(frame)))
		packets, err := enc.Encode([][]byte{frames[n%len(frames)]})
		if err != nil {
			return err
		}
		for _, p := range packets {
			p.Timestamp = uint32(n) * 1024 //nolint:gosec // wraps
			if err := c.stream.WritePacketRTPWithNTP(m, p, at); err != nil {
				return err
			}
		}
	}
}

const aacRate = 16000

// loadAAC leaves out the first frame, which only prepares the decoder.
func loadAAC(file string) (frames [][]byte, _ format.Format, _ error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var packets mpeg4audio.ADTSPackets
	if err := packets.Unmarshal(b); err != nil {
		return nil, nil, err
	}
	for _, p := range packets[1:] {
		frames = append(frames, p.AU)
	}
	f := &format.MPEG4Audio{PayloadTyp: 97, SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3}
	return frames, f, made(&f.Config).Unmarshal([]byte{0x14, 0x08}) // AAC-LC, 16 kHz, mono
}

// made is a new value at a place whose type belongs to another version of a library.
func made[T any](at **T) *T {
	*at = new(T)
	return *at
}

// tone is 20 ms of 440 Hz.
func tone(n int) []byte {
	pcm := make([]byte, 320)
	for i := range 160 {
		v := int16(8000 * math.Sin(2*math.Pi*440*float64(n*160+i)/8000))
		pcm[2*i], pcm[2*i+1] = byte(uint16(v)>>8), byte(v) //nolint:gosec // halves
	}
	out, err := g711.Mulaw(pcm).Marshal()
	if err != nil {
		panic(err) // the length is right
	}
	return out
}

// picture is what a camera shows.
type picture struct {
	form     format.Format
	encode   func([][]byte) ([]*rtp.Packet, error)
	pictures [][][]byte
}

func (o options) picture() (v picture, err error) {
	if o.h265 != "" {
		pictures, sets, err := load(o.h265, 35, []byte{32, 33, 34}, func(u []byte) byte { return u[0] >> 1 & 0x3f })
		if err != nil {
			return v, err
		}
		f := &format.H265{PayloadTyp: 96, VPS: sets[0], SPS: sets[1], PPS: sets[2]}
		enc, err := f.CreateEncoder()
		return picture{f, enc.Encode, pictures}, err
	}
	pictures, sets, err := load(o.h264, 9, []byte{7, 8}, func(u []byte) byte { return u[0] & 0x1f })
	if err != nil {
		return v, err
	}
	f := &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: sets[0], PPS: sets[1]}
	enc, err := f.CreateEncoder()
	return picture{f, enc.Encode, pictures}, err
}

// load cuts a file into pictures at its delimiters. Parameter sets are left out: a camera
// may give them in its description alone.
func load(file string, delimiter byte, types []byte, kind func([]byte) byte) (pictures [][][]byte, sets [][]byte, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	sets = make([][]byte, len(types))
	for _, u := range bytes.Split(b, []byte{0, 0, 1}) {
		u = bytes.TrimRight(u, "\x00") // of the next start code
		if len(u) == 0 {
			continue
		}
		if i := bytes.IndexByte(types, kind(u)); i >= 0 {
			sets[i] = u
		} else if kind(u) == delimiter {
			pictures = append(pictures, nil)
		} else if len(pictures) > 0 {
			pictures[len(pictures)-1] = append(pictures[len(pictures)-1], u)
		}
	}
	for _, s := range sets {
		if len(pictures) == 0 || s == nil {
			return nil, nil, fmt.Errorf("%s has no pictures; encode it with aud=1", file)
		}
	}
	return pictures, sets, nil
}
