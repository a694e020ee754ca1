package media

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listTime bounds the question which decoders a program has.
const listTime = 10 * time.Second

// Decoder is what a sink's program takes for a codec.
type Decoder struct {
	Codec    string
	Name     string // empty: it has none
	Hardware bool
}

// Decoders asks the program of a sink which decoder it takes for each codec. known is false
// for a program that cannot be asked. Nothing is decoded.
func Decoders(ctx context.Context, program string, codecs []string) (out []Decoder, known bool) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	var pick func(codec string) string
	switch filepath.Base(program) {
	case "ffplay", "ffmpeg":
		list := &bytes.Buffer{}
		if err := runOnce(ctx, []string{program, "-hide_banner", "-decoders"}, nil, list); err.exit != nil {
			return nil, false
		}
		pick = func(codec string) string { return firstDecoder(list.String(), codec) }
	case "gst-launch-1.0":
		pick = func(codec string) string { return bestElement(ctx, codec) }
	default:
		return nil, false
	}
	for _, codec := range codecs {
		name := pick(codec)
		out = append(out, Decoder{Codec: codec, Name: name, Hardware: isHardware(name)})
	}
	return out, true
}

// firstDecoder reads ffmpeg's list: of several for one codec it takes the first.
func firstDecoder(list, codec string) string {
	id := map[string]string{"h265": "hevc", "g722": "adpcm_g722", "pcmu": "pcm_mulaw", "pcma": "pcm_alaw"}[strings.ToLower(codec)]
	if id == "" {
		id = strings.ToLower(codec)
	}
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[1] == id || strings.Contains(line, "(codec "+id+")")) {
			return f[1]
		}
	}
	return ""
}

// elements that decode, of GStreamer; decodebin takes the one of the highest rank.
func elements(codec string) []string {
	return map[string][]string{
		"H264": {"v4l2h264dec", "v4l2slh264dec", "vah264dec", "vaapih264dec", "nvh264dec", "avdec_h264", "openh264dec"},
		"H265": {"v4l2h265dec", "v4l2slh265dec", "vah265dec", "vaapih265dec", "nvh265dec", "avdec_h265", "libde265dec"},
		"VP8":  {"v4l2vp8dec", "v4l2slvp8dec", "vavp8dec", "vaapivp8dec", "nvvp8dec", "vp8dec", "avdec_vp8"},
		"opus": {"opusdec", "avdec_opus"},
		"G722": {"avdec_g722"},
		"PCMU": {"mulawdec", "avdec_pcm_mulaw"},
		"PCMA": {"alawdec", "avdec_pcm_alaw"},
	}[codec]
}

var rank = regexp.MustCompile(`(?m)^ *Rank +[^(]*\((\d+)\)`) // of gst-inspect-1.0

func bestElement(ctx context.Context, codec string) (best string) {
	highest := 0
	for _, e := range elements(codec) {
		out := &bytes.Buffer{}
		if err := runOnce(ctx, []string{"gst-inspect-1.0", e}, nil, out); err.exit != nil {
			continue
		}
		if m := rank.FindSubmatch(out.Bytes()); m != nil {
			if n, _ := strconv.Atoi(string(m[1])); n > highest {
				best, highest = e, n
			}
		}
	}
	return best
}

func isHardware(name string) bool {
	return slices.ContainsFunc([]string{"v4l2", "vaapi", "vah26", "vavp8", "nvh26", "nvvp8", "_qsv", "_cuvid", "_omx", "_mmal"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}
