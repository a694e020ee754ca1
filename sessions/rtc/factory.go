// Package rtc owns the media leg between members: ICE, DTLS-SRTP and RTP by pion, host
// candidates only, no STUN or TURN server. Its Factory implements sessions.Media.
//
// pion's directions ratchet down for good, so pion stays at sendrecv: this package writes
// the direction lines of the SDP itself and gates its writers by what was agreed.
// A Leg's methods are called one after the other, Close from anywhere; nothing is
// opened before Start.
package rtc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// iceFailed: a pair that was not heard for this long is gone (decisions: 15 s), and so long
	// a path is looked for once both sides have accepted. pion calls it disconnected after
	// iceQuiet; the rest is counted here (Leg.wait).
	iceFailed, iceQuiet = 15 * time.Second, 5 * time.Second
	// iceKeepalive also keeps consent fresh (RFC 7675).
	iceKeepalive = 2 * time.Second
	// reportsEvery is between two receiver reports: more often than RFC 3550 section 6.2 asks
	// for, since people watch the figures, and half as often as pion would.
	reportsEvery = 2 * time.Second
	// replayWindow is how late a packet may come (RFC 3711 section 3.3.2 asks for 64 at least):
	// a repair behind a key frame, or 200 ms of jitter, are further back than that.
	replayWindow = 1024
)

// Config of a Factory. Endpoint is required.
type Config struct {
	Endpoint   sessions.Endpoint
	Interfaces []string // names; empty means all usable ones, without loopback
	Port       uint16   // UDP port of all media; 0: the kernel chooses while calls go on
	// ResolveHost finds a name in .local, as browsers give them for candidates; nil: such
	// candidates are left out.
	ResolveHost func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger      *slog.Logger // nil discards
}

// Factory makes legs. It builds its machinery with the first one, so an idle agent
// stays small. Safe for concurrent use.
type Factory struct {
	cfg  Config
	once sync.Once
	cert webrtc.Certificate
	yard *yard
	err  error

	media *webrtc.MediaEngine
	sees  *interceptor.Registry // for legs that receive a picture
	hears *interceptor.Registry // for legs that receive sound only, which is not repaired
	sends *interceptor.Registry // for legs that only send

	mu   sync.Mutex
	legs map[*Leg]struct{} // living ones
	// ports are opened as they are needed: all legs use the first, but two to the same device
	// need two. ICE could tell them apart on one port, DTLS and SRTP cannot: there is nothing
	// but the address of the other side to go by.
	ports []*port
}

// New makes a factory.
func New(cfg Config) *Factory {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Factory{cfg: cfg, legs: map[*Leg]struct{}{}}
}

// NewLeg implements sessions.Media.
func (f *Factory) NewLeg(cfg sessions.LegConfig) (sessions.Leg, error) {
	if cfg.Direct != nil {
		return newDirect(f.cfg.Endpoint, cfg), nil
	}
	f.once.Do(f.build)
	if f.err != nil {
		return nil, f.err
	}
	l := newLeg(f, cfg)
	f.take(l)
	pc, err := f.api(l).NewPeerConnection(webrtc.Configuration{
		Certificates: []webrtc.Certificate{f.cert}, BundlePolicy: webrtc.BundlePolicyMaxBundle, RTCPMuxPolicy: webrtc.RTCPMuxPolicyRequire,
	})
	if err != nil {
		f.forget(l)
		return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	l.use(pc)
	return l, nil
}

// take notes a leg and gives it the first port that no other leg to the same node has; a node
// may speak for many devices.
func (f *Factory) take(l *Leg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := map[*port]bool{}
	for other := range f.legs {
		if other.cfg.Peer == l.cfg.Peer {
			taken[other.port] = true
		}
	}
	i := slices.IndexFunc(f.ports, func(p *port) bool { return !taken[p] })
	if i < 0 {
		number := uint16(0) // the kernel chooses
		if len(f.ports) == 0 {
			number = f.cfg.Port
		}
		i = len(f.ports)
		f.ports = append(f.ports, &port{number: number, interfaces: f.cfg.Interfaces, log: silent().NewLogger("ice")})
	}
	l.port = f.ports[i]
	l.port.acquire()
	f.legs[l] = struct{}{}
}

func (f *Factory) forget(l *Leg) {
	f.mu.Lock()
	delete(f.legs, l)
	f.mu.Unlock()
	l.port.release()
}

// payload types are fixed, so that both sides agree without surprises; RFC 3551 names
// those of G.711 and G.722.
func codecTable() []webrtc.RTPCodecParameters {
	fb := []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}
	c := func(mime string, rate uint32, ch uint16, fmtp string, pt webrtc.PayloadType, fb []webrtc.RTCPFeedback) webrtc.RTPCodecParameters {
		return webrtc.RTPCodecParameters{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: mime, ClockRate: rate, Channels: ch, SDPFmtpLine: fmtp, RTCPFeedback: fb}, PayloadType: pt}
	}
	return []webrtc.RTPCodecParameters{
		c(webrtc.MimeTypeOpus, 48000, 2, "minptime=10;useinbandfec=1", 111, nil),
		c(webrtc.MimeTypeG722, 8000, 0, "", 9, nil),
		c(webrtc.MimeTypePCMU, 8000, 0, "", 0, nil),
		c(webrtc.MimeTypePCMA, 8000, 0, "", 8, nil),
		c(webrtc.MimeTypeH264, 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 102, fb),
		c(webrtc.MimeTypeVP8, 90000, 0, "", 96, fb),
		c(webrtc.MimeTypeH265, 90000, 0, "", 98, fb), // RFC 7798 section 7.1: all defaults, single stream
	}
}

func kindOf(mime string) webrtc.RTPCodecType {
	if strings.HasPrefix(mime, "video/") {
		return webrtc.RTPCodecTypeVideo
	}
	return webrtc.RTPCodecTypeAudio
}

// named finds the table's entries for a profile's codecs, in the profile's order.
func named(codecs []profiles.Codec) []webrtc.RTPCodecParameters {
	var out []webrtc.RTPCodecParameters
	for _, c := range codecs {
		for _, t := range codecTable() {
			_, name, _ := strings.Cut(t.MimeType, "/")
			if strings.EqualFold(name, c.Name) {
				out = append(out, t)
			}
		}
	}
	return out
}

func (f *Factory) build() {
	f.media = &webrtc.MediaEngine{}
	for _, c := range codecTable() {
		if f.err = f.media.RegisterCodec(c, kindOf(c.MimeType)); f.err != nil {
			return
		}
	}
	// What is sent needs no interceptor: the source repairs for all its viewers (track.go),
	// and pion would keep a copy of every packet for each of them.
	f.sends, f.hears, f.sees = &interceptor.Registry{}, &interceptor.Registry{}, &interceptor.Registry{}
	generator, err1 := nack.NewGeneratorInterceptor()
	receiver, err2 := report.NewReceiverInterceptor(report.ReceiverInterval(reportsEvery))
	key, err3 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if f.err = errors.Join(err1, err2, err3); f.err != nil {
		return
	}
	f.hears.Add(receiver)
	f.sees.Add(generator)
	f.sees.Add(receiver)
	cert, err := webrtc.GenerateCertificate(key)
	if f.err = err; err != nil {
		return
	}
	f.cert = *cert
	f.yard = newYard()
}

func silent() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
}

// api makes pion for one leg, which has its own port and train.
func (f *Factory) api(l *Leg) *webrtc.API {
	reg := f.sends
	switch c := l.cfg.Capabilities; {
	case c.Video.Direction.Receives():
		reg = f.sees
	case c.Audio.Direction.Receives():
		reg = f.hears
	}
	s := f.settings()
	s.SetICEUDPMux(trainPort{l.port, l.out})
	return webrtc.NewAPI(webrtc.WithMediaEngine(f.media), webrtc.WithInterceptorRegistry(reg), webrtc.WithSettingEngine(s))
}

func (f *Factory) settings() webrtc.SettingEngine {
	s := webrtc.SettingEngine{LoggerFactory: silent()}
	s.SetICETimeouts(iceQuiet, 0, iceKeepalive)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled) // our own engine resolves .local
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetSRTPReplayProtectionWindow(replayWindow)
	s.SetHostAcceptanceMinWait(0)
	s.SetIncludeLoopbackCandidate(slices.Contains(f.cfg.Interfaces, "lo"))
	return s
}
