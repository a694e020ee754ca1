package rtc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// maxSDP bounds what a member may make us parse; a pion offer has 5 to 6 kB.
const maxSDP = 60 << 10

// section is what matters of one media section of the other side's SDP.
type section struct {
	kind      string
	direction profiles.Direction
	codecs    []profiles.Codec
	rejected  bool
}

// readSDP parses the other side's description.
func readSDP(raw []byte) ([]section, error) {
	if len(raw) == 0 || len(raw) > maxSDP {
		return nil, fmt.Errorf("%w: the session description has %d bytes", sessions.ErrNoCommonCodec, len(raw))
	}
	var d sdp.SessionDescription
	if err := d.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("%w: the session description is malformed: %v", sessions.ErrNoCommonCodec, err)
	}
	var out []section
	for _, m := range d.MediaDescriptions {
		s := section{kind: m.MediaName.Media, direction: profiles.SendRecv, rejected: m.MediaName.Port.Value == 0}
		for _, a := range m.Attributes {
			if dir := profiles.Direction(a.Key); slices.Contains(directions, dir) {
				s.direction = dir
			}
		}
		for _, f := range m.MediaName.Formats {
			if c, ok := codecOf(m, f); ok {
				s.codecs = append(s.codecs, c)
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

// agree gives the direction that both sides want, seen from us.
func agree(ours, theirs profiles.Direction) profiles.Direction {
	return profiles.Join(ours.Sends() && theirs.Receives(), ours.Receives() && theirs.Sends())
}
