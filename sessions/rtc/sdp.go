package rtc

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// maxSDP bounds what a member may make us parse; a browser's offer has 5 to 6 kB.
	maxSDP = 60 << 10
	// maxSections and maxFormats bound what one description can make us build: 60 kB hold
	// 6,000 sections, and each costs a transceiver and its goroutines.
	maxSections, maxFormats = 8, 64
)

// section is what matters of one media section of the other side's SDP.
type section struct {
	kind      string
	direction profiles.Direction
	codecs    []profiles.Codec
	payloads  []uint8 // of the codecs
	rejected  bool
}

// as gives codecs of ours the payload types that the other side has offered for them (RFC 3264
// section 6.1): a browser has its own, and several for H.264, of which the same profile is meant.
func (s section) as(codecs []webrtc.RTPCodecParameters) []webrtc.RTPCodecParameters {
	out := slices.Clone(codecs)
	for i, c := range out {
		_, name, _ := strings.Cut(c.MimeType, "/")
		ours := profiles.Codec{Name: name, ClockRate: c.ClockRate, Channels: c.Channels, Fmtp: c.SDPFmtpLine}
		if strings.HasPrefix(c.MimeType, "audio/") {
			ours.Channels = max(ours.Channels, 1)
		}
		found := false
		for n, theirs := range s.codecs {
			exact := h264Profile(theirs.Fmtp) == h264Profile(c.SDPFmtpLine)
			if theirs.Fits(ours) && (!found || exact) {
				out[i].PayloadType, found = webrtc.PayloadType(s.payloads[n]), true
				if exact {
					break
				}
			}
		}
	}
	return out
}

// h264Profile is the first two bytes of a profile-level-id (RFC 6184 section 8.1): the level may
// differ.
func h264Profile(fmtp string) string {
	for p := range strings.SplitSeq(fmtp, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(p), "profile-level-id="); ok && len(v) == 6 {
			return strings.ToLower(v[:4])
		}
	}
	return ""
}

// readSDP parses the other side's description.
func readSDP(raw []byte) ([]section, error) {
	if len(raw) == 0 || len(raw) > maxSDP {
		return nil, fmt.Errorf("%w: the session description has %d bytes", sessions.ErrNoCommonCodec, len(raw))
	}
	var d sdp.SessionDescription
	if err := d.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("%w: the session description is malformed: %w", sessions.ErrNoCommonCodec, err)
	}
	if len(d.MediaDescriptions) > maxSections {
		return nil, fmt.Errorf("%w: the session description has %d media sections, at most %d are taken", sessions.ErrNoCommonCodec, len(d.MediaDescriptions), maxSections)
	}
	var out []section
	for _, m := range d.MediaDescriptions {
		s := section{kind: m.MediaName.Media, direction: profiles.SendRecv, rejected: m.MediaName.Port.Value == 0}
		for _, a := range m.Attributes {
			if dir := profiles.Direction(a.Key); slices.Contains(directions, dir) {
				s.direction = dir
			}
		}
		for _, f := range m.MediaName.Formats[:min(len(m.MediaName.Formats), maxFormats)] {
			pt, err := strconv.ParseUint(f, 10, 7)
			if c, ok := codecOf(m, f); ok && err == nil {
				s.codecs, s.payloads = append(s.codecs, c), append(s.payloads, uint8(pt))
			}
		}
		out = append(out, s)
	}
	return out, nil
}

var directions = []profiles.Direction{profiles.SendRecv, profiles.SendOnly, profiles.RecvOnly, profiles.Inactive}

func codecOf(m *sdp.MediaDescription, format string) (profiles.Codec, bool) {
	static := map[string]profiles.Codec{ // RFC 3551: need no rtpmap
		"0": {Name: "PCMU", ClockRate: 8000, Channels: 1}, "8": {Name: "PCMA", ClockRate: 8000, Channels: 1}, "9": {Name: "G722", ClockRate: 8000, Channels: 1},
	}
	c, ok := static[format]
	for _, a := range m.Attributes {
		pt, rest, found := strings.Cut(a.Value, " ")
		if !found || pt != format {
			continue
		}
		switch a.Key {
		case "rtpmap":
			var rate uint32
			name, params, _ := strings.Cut(rest, "/")
			clock, channels, _ := strings.Cut(params, "/")
			if _, err := fmt.Sscan(clock, &rate); err != nil {
				return c, false
			}
			c.Name, c.ClockRate, ok = name, rate, true
			if m.MediaName.Media == "audio" {
				c.Channels = 1
				if channels == "2" {
					c.Channels = 2
				}
			}
		case "fmtp":
			c.Fmtp = rest
		}
	}
	return c, ok
}

// setDirections rewrites the direction line of every media section.
func setDirections(raw string, dirs []profiles.Direction) string {
	i := -1
	lines := strings.Split(strings.ReplaceAll(raw, "\r\n", "\n"), "\n")
	for n, l := range lines {
		if strings.HasPrefix(l, "m=") {
			i++
		}
		if d, ok := strings.CutPrefix(l, "a="); ok && i >= 0 && i < len(dirs) && slices.Contains(directions, profiles.Direction(d)) {
			lines[n] = "a=" + string(dirs[i])
		}
	}
	return strings.Join(lines, "\r\n")
}

func sendRecv(n int) []profiles.Direction {
	return slices.Repeat([]profiles.Direction{profiles.SendRecv}, n)
}

// rejectSections gives the marked sections port 0 and takes them out of the bundle (RFC
// 3264 section 6, RFC 9143 section 7.3.2). Candidates that stood in one of them move to
// the first section that stays.
func rejectSections(raw string, reject []bool) string {
	if !slices.Contains(reject, true) {
		return raw
	}
	sections := strings.Split(strings.TrimSuffix(raw, "\r\n"), "\r\nm=")
	var out, moved []string
	first, gone := -1, map[string]bool{}
	for i, s := range sections[1:] {
		lines := strings.Split(s, "\r\n")
		if i < len(reject) && reject[i] {
			kind, rest, _ := strings.Cut(lines[0], " ")
			if _, formats, ok := strings.Cut(rest, " "); ok {
				lines[0] = kind + " 0 " + formats
			}
			lines = slices.DeleteFunc(lines, func(l string) bool {
				mid, isMid := strings.CutPrefix(l, "a=mid:")
				gone[mid] = gone[mid] || isMid
				candidate := strings.HasPrefix(l, "a=candidate:") || l == "a=end-of-candidates"
				if candidate {
					moved = append(moved, l)
				}
				return candidate
			})
		} else if first < 0 {
			first = i
		}
		out = append(out, strings.Join(lines, "\r\n"))
	}
	if first >= 0 && len(moved) > 0 {
		out[first] += "\r\n" + strings.Join(moved, "\r\n")
	}
	session := strings.Split(sections[0], "\r\n")
	for n, l := range session {
		if group, ok := strings.CutPrefix(l, "a=group:BUNDLE"); ok {
			mids := slices.DeleteFunc(strings.Fields(group), func(m string) bool { return gone[m] })
			session[n] = strings.Join(append([]string{"a=group:BUNDLE"}, mids...), " ")
		}
	}
	return strings.Join(append([]string{strings.Join(session, "\r\n")}, out...), "\r\nm=") + "\r\n"
}

// linkPriority is that of a host candidate (RFC 8445 section 5.1.2.1) which is tried after
// the others: they work across links, too.
const linkPriority = 126<<24 | 1<<8 | 255

// addLinkLocal writes the candidates that the ICE library keeps to itself: on a network
// without a router link-local addresses are all there is. They go into the first section.
func addLinkLocal(raw string, at []netip.AddrPort) string {
	if len(at) == 0 {
		return raw
	}
	end := len(raw)
	if first := strings.Index(raw, "\r\nm="); first >= 0 {
		if second := strings.Index(raw[first+2:], "\r\nm="); second >= 0 {
			end = first + 2 + second + 2
		}
	}
	var lines strings.Builder
	for i, a := range at {
		fmt.Fprintf(&lines, "a=candidate:%d 1 udp %d %s %d typ host\r\n", 9000+i, linkPriority, a.Addr(), a.Port())
	}
	return raw[:end] + lines.String() + raw[end:]
}

// agree gives the direction that both sides want, seen from us.
func agree(ours, theirs profiles.Direction) profiles.Direction {
	return profiles.Join(ours.Sends() && theirs.Receives(), ours.Receives() && theirs.Sends())
}
