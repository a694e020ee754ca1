package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions/media"
)

// codecs says what makes and what takes sound and picture on this device: the encoders
// that really work here, and the decoders that the sink's program has. What was tried before is
// not tried again.
func codecs(ctx context.Context, c config.Config) []api.Check {
	p, err := c.Profile()
	if err != nil {
		return nil // said where the pipelines are
	}
	var out []api.Check
	if source, err := c.SourcePipeline(); err == nil && source != nil && there(source) {
		e, err := media.NewEncoders(p.Encoders, c.EncoderResults())
		if err != nil {
			return []api.Check{{Name: "encoder", Level: levelFail, Words: err.Error(), Advice: "correct `encoders` in the file of pipelines"}}
		}
		for _, kind := range profiles.Kinds() {
			if part := source.Of(kind); part != nil {
				out = append(out, encoder(ctx, e, kind, source.Command[0], *part))
			}
		}
	}
	if sink, err := c.SinkPipeline(); err == nil && sink != nil && there(sink) {
		for kind, m := range map[string]profiles.Medium{"audio": p.Capabilities.Audio, "video": p.Capabilities.Video} {
			var names []string
			for _, k := range m.Codecs {
				names = append(names, k.Name)
			}
			if len(names) > 0 && m.Direction.Receives() {
				found, known := media.Decoders(ctx, sink.Command[0], names)
				out = append(out, decoder(kind, sink.Command[0], found, known))
			}
		}
	}
	slices.SortFunc(out, func(a, b api.Check) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func there(p *profiles.Pipeline) bool {
	_, err := exec.LookPath(p.Command[0])
	return err == nil
}

// seen is what people call a kind of media.
func seen(kind string) string {
	if kind == "video" {
		return "picture"
	}
	return "sound"
}

// encoder is the line for one kind of what this device sends. One codec that works is
// enough for a call; a picture that leaves in software only is worth a word.
func encoder(ctx context.Context, e *media.Encoders, kind, program string, part profiles.Stream) api.Check {
	name := seen(kind) + " encoder"
	if !slices.Contains(part.Output, "{{.Encoder}}") {
		return ok(name, "%s, by the pipeline's own command", strings.Join(part.Codecs, ", "))
	}
	var works, not []string
	var why error
	for _, codec := range part.Codecs {
		x, err := e.Pick(ctx, program, codec)
		if err != nil {
			not, why = append(not, codec), err
			continue
		}
		works = append(works, by(codec, x.Name, x.Hardware, kind))
	}
	if len(works) == 0 {
		return api.Check{
			Name: name, Level: levelFail, Words: fmt.Sprintf("this device can send no %s: %v", seen(kind), why),
			Advice: "install what makes " + part.Codecs[0] + ": " + packageFor(program, part.Codecs[0]) + "; then `hallway pipelines --again`",
		}
	}
	words := strings.Join(works, ", ")
	if len(not) > 0 {
		words += "; nothing here makes " + strings.Join(not, ", ")
	}
	return ok(name, "%s", words)
}

// decoder is the line for one kind of what this device shows or plays.
func decoder(kind, program string, found []media.Decoder, known bool) api.Check {
	name := seen(kind) + " decoder"
	if !known {
		return ok(name, "%s decides", program)
	}
	var works, not []string
	for _, d := range found {
		if d.Name == "" {
			not = append(not, d.Codec)
		} else {
			works = append(works, by(d.Codec, d.Name, d.Hardware, kind))
		}
	}
	words := strings.Join(works, ", ")
	if len(not) == 0 {
		return ok(name, "%s", words)
	}
	c := api.Check{Name: name, Level: "warn", Words: words + "; nothing here takes " + strings.Join(not, ", "), Advice: "install " + packageFor(program, not[0])}
	if len(works) == 0 {
		c.Level, c.Words = levelFail, fmt.Sprintf("%s decodes no %s", program, seen(kind))
	}
	return c
}

func by(codec, name string, hardware bool, kind string) string {
	switch {
	case hardware:
		return codec + " by " + name + " (hardware)"
	case kind == "video":
		return codec + " by " + name + " (software)"
	}
	return codec + " by " + name
}

// packageFor says where Debian has what makes and takes a codec.
func packageFor(program, codec string) string {
	if program != "gst-launch-1.0" {
		return "a build of ffmpeg with " + codec + " (Debian: apt install ffmpeg)"
	}
	set := map[string]string{"H264": "gstreamer1.0-plugins-ugly gstreamer1.0-libav", "H265": "gstreamer1.0-plugins-bad gstreamer1.0-libav", "opus": "gstreamer1.0-plugins-base", "G722": "gstreamer1.0-libav"}[codec]
	if set == "" {
		set = "gstreamer1.0-plugins-good"
	}
	return "GStreamer's plugins for it (Debian: apt install " + set + ")"
}
