// Command rtspcamera is an RTSP camera for tests: it plays an H.264 file in a loop, with a
// tone in G.711, asks for a password by digest, and prints a line of JSON for whatever
// is done to it, so that a test sees when it is opened and by how many.
package main

import (
	"bytes"
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
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
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

func main() {
	listen := flag.String("listen", "127.0.0.1:8554", "where RTSP is served")
	file := flag.String("h264", "", "H.264 with access unit delimiters, 25 pictures a second")
	user := flag.String("user", "", "user name")
	password := flag.String("password", "", "password")
	udp := flag.Bool("udp", true, "take UDP, too")
	flag.Parse()
	if err := run(*listen, *file, *user, *password, *udp); err != nil {
		log.Fatal(err)
	}
}

func run(listen, file, user, password string, udp bool) error {
	pictures, sps, pps, err := load(file)
	if err != nil {
		return err
	}
	c := &camera{user: user, password: password}
	c.server = &gortsplib.Server{Handler: c, RTSPAddress: listen}
	if udp {
		c.server.UDPRTPAddress, c.server.UDPRTCPAddress = ":8000", ":8001"
	}
	if err := c.server.Start(); err != nil {
		return err
	}
	video := &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: sps, PPS: pps}
	audio := &format.G711{PayloadTyp: 0, MULaw: true, SampleRate: 8000, ChannelCount: 1}
	desc := &description.Session{Medias: []*description.Media{
		{Type: description.MediaTypeVideo, Formats: []format.Format{video}}, {Type: description.MediaTypeAudio, Formats: []format.Format{audio}},
	}}
	c.stream = gortsplib.NewServerStream(c.server, desc)
	c.tell("ready", 0)
	return c.play(desc, video, pictures)
}

// play sends pictures and tone in real time, for ever.
func (c *camera) play(desc *description.Session, video *format.H264, pictures [][][]byte) error {
	enc, err := video.CreateEncoder()
	if err != nil {
		return err
	}
	var seq uint16
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	for n := 0; ; n++ {
		packets, err := enc.Encode(pictures[n%len(pictures)])
		if err != nil {
			return err
		}
		for _, p := range packets {
			p.Timestamp = uint32(n) * 3600 //nolint:gosec // wraps
			if err := c.stream.WritePacketRTP(desc.Medias[0], p); err != nil {
				return err
			}
		}
		for i := range 2 {
			seq++
			p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(n*2+i) * 160, SSRC: 7}, Payload: tone(n*2 + i)} //nolint:gosec // wraps
			if err := c.stream.WritePacketRTP(desc.Medias[1], p); err != nil {
				return err
			}
		}
		<-tick.C
	}
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

// load cuts a file into pictures at its delimiters. Parameter sets are left out: a camera
// may give them in its description alone.
func load(file string) (pictures [][][]byte, sps, pps []byte, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, u := range bytes.Split(b, []byte{0, 0, 1}) {
		u = bytes.TrimRight(u, "\x00") // of the next start code
		if len(u) == 0 {
			continue
		}
		switch h264.NALUType(u[0] & 0x1f) {
		case h264.NALUTypeAccessUnitDelimiter:
			pictures = append(pictures, nil)
		case h264.NALUTypeSPS:
			sps = u
		case h264.NALUTypePPS:
			pps = u
		default:
			if len(pictures) > 0 {
				pictures[len(pictures)-1] = append(pictures[len(pictures)-1], u)
			}
		}
	}
	if len(pictures) == 0 || sps == nil || pps == nil {
		return nil, nil, nil, fmt.Errorf("%s has no pictures; encode it with aud=1", file)
	}
	return pictures, sps, pps, nil
}
