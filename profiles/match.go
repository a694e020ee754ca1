package profiles

import (
	"errors"
	"slices"
	"strings"
)

// ErrNothingInCommon says that two devices share neither sound nor picture.
var ErrNothingInCommon = errors.New("the two devices share no way to send sound or picture")

// MediumMatch is what two devices can do together for one kind of media.
type MediumMatch struct {
	Direction Direction // seen from the caller
	Codecs    []Codec   // in the caller's order
	Makes     []string  // of the caller's source
}

// MatchResult is what a call between two devices can be.
type MatchResult struct{ Audio, Video MediumMatch }

// Empty reports whether nothing is shared.
func (m MatchResult) Empty() bool {
	return m.Audio.Direction.none() && m.Video.Direction.none()
}

// Caller is what the caller should offer.
func (m MatchResult) Caller() Capabilities {
	return Capabilities{
		Audio: Medium{Direction: m.Audio.Direction, Codecs: m.Audio.Codecs, Makes: m.Audio.Makes},
		Video: Medium{Direction: m.Video.Direction, Codecs: m.Video.Codecs, Makes: m.Video.Makes},
	}
}

// Match says what a call between two devices can be: a video call to a speaker is sound
// only, a call to a camera one way. It returns ErrNothingInCommon when no medium fits.
func Match(caller, callee Capabilities) (MatchResult, error) {
	m := MatchResult{Audio: matchMedium(caller.Audio, callee.Audio), Video: matchMedium(caller.Video, callee.Video)}
	if m.Empty() {
		return m, ErrNothingInCommon
	}
	return m, nil
}

func matchMedium(a, b Medium) MediumMatch {
	none := MediumMatch{Direction: Inactive}
	var common []Codec
	for _, c := range a.Codecs {
		if slices.ContainsFunc(b.Codecs, c.Fits) {
			common = append(common, c)
		}
	}
	ours, theirs := a.Within(common), b.Within(common)
	d := Join(ours.Sends() && theirs.Receives(), ours.Receives() && theirs.Sends())
	if d.none() {
		return none
	}
	return MediumMatch{Direction: d, Codecs: common, Makes: a.Makes}
}

// Within is the direction that is left when only these codecs may be used: nothing is
// sent that the source cannot make in one of them.
func (m Medium) Within(codecs []Codec) Direction {
	if len(codecs) == 0 {
		return Inactive
	}
	_, makes := m.Choose(codecs)
	return Join(m.Direction.Sends() && makes, m.Direction.Receives())
}

// Choose picks what is sent: the first of the agreed codecs that the source can make.
func (m Medium) Choose(agreed []Codec) (Codec, bool) {
	for _, c := range agreed {
		if len(m.Makes) == 0 || slices.ContainsFunc(m.Makes, func(name string) bool { return strings.EqualFold(name, c.Name) }) {
			return c, true
		}
	}
	return Codec{}, false
}

// Fits reports whether two entries mean the same codec, packetization included.
func (c Codec) Fits(o Codec) bool {
	return strings.EqualFold(c.Name, o.Name) && c.ClockRate == o.ClockRate && c.Channels == o.Channels &&
		packetization(c) == packetization(o)
}

// packetization of H.264 (RFC 6184 section 8.1): modes do not mix.
func packetization(c Codec) string {
	if !strings.EqualFold(c.Name, "H264") {
		return ""
	}
	for _, p := range strings.Split(c.Fmtp, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(p), "packetization-mode="); ok {
			return v
		}
	}
	return "0"
}

// Join makes a direction of its two halves.
func Join(send, receive bool) Direction {
	switch {
	case send && receive:
		return SendRecv
	case send:
		return SendOnly
	case receive:
		return RecvOnly
	}
	return Inactive
}

// Sends reports whether the direction includes sending.
func (d Direction) Sends() bool { return d == SendRecv || d == SendOnly }

// Receives reports whether the direction includes receiving.
func (d Direction) Receives() bool { return d == SendRecv || d == RecvOnly }

func (d Direction) none() bool { return !d.Sends() && !d.Receives() }
