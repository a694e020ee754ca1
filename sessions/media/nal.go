package media

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/pion/rtp/codecs"
)

// inspect says whether a picture is a key frame that a player can begin with, and notes
// what the player must know beforehand.
func (t *recTrack) inspect(b []byte) (key bool) {
	if strings.EqualFold(t.codec.Name, "VP8") {
		if len(b) < 10 || b[0]&1 != 0 {
			return false
		}
		if t.width == 0 {
			t.width, t.height = uint64(binary.LittleEndian.Uint16(b[6:])&0x3fff), uint64(binary.LittleEndian.Uint16(b[8:])&0x3fff)
		}
		return true
	}
	form := h264Sets()
	if strings.EqualFold(t.codec.Name, "H265") {
		form = h265Sets()
	}
	sets := make([][]byte, len(form.sets))
	for rest := b; len(rest) > 4; {
		l := int(binary.BigEndian.Uint32(rest))
		if l < form.header || l > len(rest)-4 {
			return false
		}
		nal := rest[4 : 4+l]
		kind := form.kind(nal)
		key = key || kind >= form.firstKey && kind <= form.lastKey
		if i := slices.Index(form.sets, kind); i >= 0 {
			sets[i] = nal
		}
		rest = rest[4+l:]
	}
	if t.private == nil && !slices.ContainsFunc(sets, func(s []byte) bool { return s == nil }) {
		t.private, t.width, t.height = form.describe(sets)
	}
	// After a loss only the parameter sets show that the picture's beginning is there.
	return key && t.private != nil && (t.keyed || sets[len(sets)-2] != nil)
}

// setForm is what a player must be told of a codec that has parameter sets.
type setForm struct {
	header            int // bytes of a NAL unit's header
	kind              func(nal []byte) byte
	firstKey, lastKey byte
	sets              []byte // types of the parameter sets, the SPS last but one
	describe          func(sets [][]byte) (private []byte, width, height uint64)
}

// h264Sets is ITU-T H.264 table 7-1.
func h264Sets() setForm {
	return setForm{1, func(nal []byte) byte { return nal[0] & 0x1f }, 5, 5, []byte{7, 8}, func(s [][]byte) ([]byte, uint64, uint64) {
		var sps h264.SPS
		if err := sps.Unmarshal(s[0]); err != nil {
			return avcC(s[0], s[1]), 0, 0
		}
		return avcC(s[0], s[1]), uint64(sps.Width()), uint64(sps.Height()) //nolint:gosec // a picture has no negative size
	}}
}

// h265Sets is ITU-T H.265 table 7-1: 16 to 21 are random access pictures.
func h265Sets() setForm {
	return setForm{2, kind265, 16, 21, []byte{32, 33, 34}, func(s [][]byte) ([]byte, uint64, uint64) {
		var sps h265.SPS
		if err := sps.Unmarshal(s[1]); err != nil {
			return hvcC(s[0], s[1], s[2]), 0, 0
		}
		return hvcC(s[0], s[1], s[2]), uint64(sps.Width()), uint64(sps.Height()) //nolint:gosec // a picture has no negative size
	}}
}

func kind265(nal []byte) byte { return nal[0] >> 1 & 0x3f }

// hvcC is ISO/IEC 14496-15 section 8.3.3.1; nil for an SPS that is too short.
func hvcC(vps, sps, pps []byte) []byte {
	plain := h264.EmulationPreventionRemove(sps)
	if len(plain) < 15 {
		return nil
	}
	b := append([]byte{1}, plain[3:15]...)                              // profile, tier and level
	b = append(b, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, byte(3)) // 4:2:0, 8 bits, lengths of 4 bytes; three arrays
	for _, nal := range [][]byte{vps, sps, pps} {
		b = append(b, 0x80|kind265(nal), 0, 1)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(nal))), nal...) //nolint:gosec // came in packets
	}
	return b
}

// h265Packet is pion's, with lengths before the NAL units as Matroska wants them.
type h265Packet struct{ codecs.H265Depacketizer }

// Unmarshal implements rtp.Depacketizer. No NAL unit holds a start code, by design (ITU-T
// H.265 section 7.4.2).
func (p *h265Packet) Unmarshal(b []byte) (out []byte, err error) {
	annexB, err := p.H265Depacketizer.Unmarshal(b)
	for nal := range bytes.SplitSeq(annexB, []byte{0, 0, 0, 1}) {
		if len(nal) > 0 {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(nal))), nal...) //nolint:gosec // bounded by the packets
		}
	}
	return out, err
}

// avcC is ISO/IEC 14496-15 section 5.3.3.1; nil for an SPS that is too short.
func avcC(sps, pps []byte) []byte {
	if len(sps) < 4 {
		return nil
	}
	b := []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
}

// entry describes the track to players (RFC 9559 section 5.1.4; the Matroska codec list).
func (t *recTrack) entry() mkvTrack {
	name := strings.ToUpper(t.codec.Name)
	if t.kind == "video" {
		e := mkvTrack{video: true, codec: "V_MPEG4/ISO/AVC", private: t.private, width: t.width, height: t.height}
		switch name {
		case "VP8":
			e.codec = "V_VP8"
		case "H265":
			e.codec = "V_MPEGH/ISO/HEVC"
		}
		return e
	}
	e := mkvTrack{codec: "A_MS/ACM", sampling: float64(t.codec.ClockRate), channels: max(1, uint64(t.codec.Channels))}
	switch name {
	case "OPUS":
		e.codec = "A_OPUS"
		e.private = []byte{'O', 'p', 'u', 's', 'H', 'e', 'a', 'd', 1, byte(e.channels), 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0} // RFC 7845 section 5.1
	case "PCMU":
		e.private = waveFormat(7, 8000, 1)
	case "PCMA":
		e.private = waveFormat(6, 8000, 1)
	case "G722":
		e.private = waveFormat(0x028f, 16000, 1)
		e.sampling = 16000 // the RTP clock of G.722 is half its sampling (RFC 3551 section 4.5.2)
	}
	return e
}

// waveFormat is WAVEFORMATEX, little endian.
func waveFormat(tag uint16, rate uint32, channels uint16) []byte {
	b := binary.LittleEndian.AppendUint16(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, 8000)
	b = binary.LittleEndian.AppendUint16(b, 1)
	b = binary.LittleEndian.AppendUint16(b, 8)
	return binary.LittleEndian.AppendUint16(b, 0)
}
