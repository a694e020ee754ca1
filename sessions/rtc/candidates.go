package rtc

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"
)

const (
	// maxCandidates bounds the connectivity checks that a description can make us send: each
	// candidate is sent to for seconds (RFC 8445 section 19.5.1, STUN amplification).
	maxCandidates = 32
	// resolveTime bounds the look-up of a .local name; the call goes on meanwhile.
	resolveTime = 3 * time.Second
)

// sift takes out of a description every candidate that we do not send to: other
// transports than UDP, other types than host, addresses that are no single host. Names in
// .local are given back to be resolved by our own engine (RFC 8835 section 3.4 and
// draft-ietf-mmusic-mdns-ice-candidates).
func sift(raw string) (clean string, names []string) {
	lines := strings.Split(strings.ReplaceAll(raw, "\r\n", "\n"), "\n")
	kept, count := lines[:0], 0
	for _, l := range lines {
		value, ok := strings.CutPrefix(l, "a=candidate:")
		if !ok {
			if l != "a=end-of-candidates" { // names may still come
				kept = append(kept, l)
			}
			continue
		}
		f := strings.Fields(value)
		if count >= maxCandidates || len(f) < 8 || !strings.EqualFold(f[2], "udp") || f[6] != "typ" || f[7] != "host" {
			continue
		}
		count++
		if strings.HasSuffix(strings.ToLower(f[4]), ".local") {
			names = append(names, value)
			continue
		}
		if a, err := netip.ParseAddr(f[4]); err == nil && single(a) {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, "\r\n"), names
}

func single(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a.Unmap() != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// resolve adds the candidates that came as names; mu is held.
func (l *Leg) resolve(names []string) {
	if l.f.cfg.ResolveHost == nil || len(names) == 0 {
		return
	}
	l.spawnLocked(func() {
		ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
		defer cancel()
		l.wg.Go(func() { // mu is not needed: this goroutine holds the group open
			select {
			case <-l.closed:
				cancel()
			case <-ctx.Done():
			}
		})
		for _, n := range names {
			f := strings.Fields(n)
			addrs, err := l.f.cfg.ResolveHost(ctx, f[4])
			if err != nil {
				l.log.Debug("a candidate's name was not resolved", "host", f[4], "err", err)
			}
			for _, a := range addrs {
				if a.Zone() != "" || !single(a) {
					continue
				}
				f[4] = a.String()
				if err := l.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: "candidate:" + strings.Join(f, " ")}); err != nil {
					l.log.Debug("a candidate was not taken", "err", err)
				}
			}
		}
	})
}
