package media

import (
	"bytes"
	"encoding/binary"
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
	if strings.EqualFold(t.codec.Name, "H265") {
		return t.inspect265(b)
	}
	var sps, pps []byte
	for rest := b; len(rest) >= 5; {
		l := int(binary.BigEndian.Uint32(rest))
		if l < 1 || l > len(rest)-4 {
			return false
		}
		switch nal := rest[4 : 4+l]; nal[0] & 0x1f {
		case 5:
			key = true
		case 7:
			sps = nal
		case 8:
			pps = nal
		}
		rest = rest[4+l:]
	}
	if t.private == nil && len(sps) >= 4 && pps != nil {
		t.private = avcC(sps, pps)
		var parsed h264.SPS
		if err := parsed.Unmarshal(sps); err == nil {
			t.width, t.height = uint64(parsed.Width()), uint64(parsed.Height()) //nolint:gosec // a picture has no negative size
		}
	}
	// After a loss only the parameter sets show that the picture's beginning is there.
	return key && t.private != nil && (t.keyed || sps != nil)
}

// inspect265 is inspect for H.265 (ITU-T H.265 table 7-1): 16 to 21 are random access
// pictures, 32 to 34 the parameter sets.
func (t *recTrack) inspect265(b []byte) (key bool) {
	var vps, sps, pps []byte
	for rest := b; len(rest) >= 6; {
		l := int(binary.BigEndian.Uint32(rest))
		if l < 2 || l > len(rest)-4 {
			return false
		}
		switch nal := rest[4 : 4+l]; kind265(nal) {
		case 16, 17, 18, 19, 20, 21:
			key = true
		case 32:
			vps = nal
		case 33:
			sps = nal
		case 34:
			pps = nal
		}
		rest = rest[4+l:]
	}
	if t.private == nil && vps != nil && sps != nil && pps != nil {
		t.private = hvcC(vps, sps, pps)
		var parsed h265.SPS
		if err := parsed.Unmarshal(sps); err == nil {
			t.width, t.height = uint64(parsed.Width()), uint64(parsed.Height()) //nolint:gosec // a picture has no negative size
		}
	}
	return key && t.private != nil && (t.keyed || sps != nil)
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

// avcC is ISO/IEC 14496-15 section 5.3.3.1.
func avcC(sps, pps []byte) []byte {
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
