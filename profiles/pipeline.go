package profiles

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// PipelineKind says which end of the media a pipeline is.
type PipelineKind string

// The two ends.
const (
	SourcePipeline PipelineKind = "source"
	SinkPipeline   PipelineKind = "sink"
)

// Pipeline is a program that makes or takes media. Commands come from profiles and files
// on disk only, never from the API. What is run is the command, then the input of each kind
// of media that is wanted now, then their outputs. So a camera is not opened for a call
// without picture, and a codec is made only when somebody takes it.
//
// In a source's output {{.Port}} is where RTP goes, on 127.0.0.1, {{.Input}} the number of
// the kind's input, and {{.Encoder}} an encoder of the machine. In a sink {{.SDP}} is a file that
// says where RTP comes, {{.Volume}} loudness from 0 to 100 and {{.Gain}} the same from 0 to 1.
type Pipeline struct {
	Name    string       `yaml:"name" json:"name"`
	Kind    PipelineKind `yaml:"kind" json:"kind"`
	About   string       `yaml:"about" json:"about"`
	Command []string     `yaml:"command" json:"command"`
	Video   *Stream      `yaml:"video,omitempty" json:"video,omitempty"`
	Audio   *Stream      `yaml:"audio,omitempty" json:"audio,omitempty"`
	// EchoCancels: what the loudspeaker of this device plays is not in the sound that it
	// sends. Without it the device is half duplex.
	EchoCancels bool `yaml:"echo-cancels,omitempty" json:"echo_cancels,omitempty"`
}

// Stream is the part of a pipeline that serves one kind of media.
type Stream struct {
	Codecs []string `yaml:"codecs,omitempty" json:"codecs,omitempty"` // what a source can make, in order of preference
	Input  []string `yaml:"input,omitempty" json:"input,omitempty"`   // words that open the device
	Output []string `yaml:"output" json:"output"`                     // words for each codec in use
}

// Of is the part of one kind, "audio" or "video"; nil if it has none.
func (l Pipeline) Of(kind string) *Stream {
	if kind == "video" {
		return l.Video
	}
	return l.Audio
}

// Kinds are the two kinds of media, in the order of the house.
func Kinds() []string { return []string{"audio", "video"} }

// check that the command and what is said about it fit together.
func (l Pipeline) check() error {
	if l.Name == "" || len(l.Command) == 0 || l.Kind != SourcePipeline && l.Kind != SinkPipeline {
		return fmt.Errorf("pipeline %q needs a name, a kind (source or sink) and a command", l.Name)
	}
	if l.Kind == SinkPipeline && !strings.Contains(strings.Join(l.Command, " "), "{{.SDP}}") {
		return fmt.Errorf("pipeline %q: a sink needs {{.SDP}} in its command, the file that says where RTP comes", l.Name)
	}
	if l.Kind == SourcePipeline && l.Video == nil && l.Audio == nil {
		return fmt.Errorf("pipeline %q: a source says what it sends, under video or audio", l.Name)
	}
	for _, kind := range Kinds() {
		s := l.Of(kind)
		if s == nil || l.Kind == SinkPipeline {
			continue
		}
		if len(s.Codecs) == 0 || !strings.Contains(strings.Join(s.Output, " "), "{{.Port}}") {
			return fmt.Errorf("pipeline %q: a source that sends %s names its codecs and has {{.Port}} in its output", l.Name, kind)
		}
		if len(s.Codecs) > 1 && !slices.Contains(s.Output, "{{.Encoder}}") {
			return fmt.Errorf("pipeline %q: a source of several codecs has {{.Encoder}} in its %s output", l.Name, kind)
		}
		for _, name := range s.Codecs {
			if c, ok := Known(name); !ok || c.Kind() != kind {
				return fmt.Errorf("pipeline %q: %q is no %s codec; there are %s", l.Name, name, kind, strings.Join(knownNames(kind), ", "))
			}
		}
	}
	return nil
}

// Pipeline finds a pipeline of the profile by name.
func (p Profile) Pipeline(kind PipelineKind, name string) (Pipeline, error) {
	var names []string
	for _, l := range p.Pipelines {
		if l.Kind == kind {
			if l.Name == name {
				return l, nil
			}
			names = append(names, l.Name)
		}
	}
	return Pipeline{}, fmt.Errorf("class %s has no %s pipeline %q; it has %v", p.Class, kind, name, names)
}

// Encoder is one way of a program to make a codec; whether it works depends on the machine.
type Encoder struct {
	Name     string   `yaml:"name" json:"name"`
	Program  string   `yaml:"program" json:"program"`
	Codec    string   `yaml:"codec" json:"codec"`
	Hardware bool     `yaml:"hardware,omitempty" json:"hardware,omitempty"`
	Args     []string `yaml:"args" json:"args"`
}

//go:embed encoders.yaml
var encoders []byte

// Encoders are those that ship with the program, in order of preference.
func Encoders() ([]Encoder, error) {
	var out []Encoder
	if err := yaml.NewDecoder(bytes.NewReader(encoders), yaml.Strict()).Decode(&out); err != nil {
		return nil, fmt.Errorf("encoders.yaml: %s", yaml.FormatError(err, false, true))
	}
	for _, e := range out {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("encoders.yaml: %w", err)
		}
	}
	return out, nil
}

func (e Encoder) check() error {
	if _, ok := Known(e.Codec); !ok || e.Name == "" || len(e.Args) == 0 || e.Program != "ffmpeg" && e.Program != "gst-launch-1.0" {
		return fmt.Errorf("encoder %q needs a name, a program (ffmpeg or gst-launch-1.0), a codec that is known and args", e.Name)
	}
	return nil
}

// known are the codecs of the house (RFC 7587, 3551, 6184, 7741, 7798).
func known() []Codec {
	return []Codec{
		{Name: "opus", ClockRate: 48000, Channels: 2, Fmtp: "minptime=10;useinbandfec=1"},
		{Name: "G722", ClockRate: 8000, Channels: 1},
		{Name: "PCMU", ClockRate: 8000, Channels: 1},
		{Name: "PCMA", ClockRate: 8000, Channels: 1},
		{Name: "H264", ClockRate: 90000, Fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"},
		{Name: "VP8", ClockRate: 90000},
		{Name: "H265", ClockRate: 90000},
	}
}

// Known finds a codec by its name in the RTP payload registry.
func Known(name string) (Codec, bool) {
	for _, c := range known() {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return Codec{}, false
}

// Kind is "video" or "audio".
func (c Codec) Kind() string {
	if c.ClockRate == 90000 {
		return "video"
	}
	return "audio"
}

func knownNames(kind string) (out []string) {
	for _, c := range known() {
		if c.Kind() == kind {
			out = append(out, c.Name)
		}
	}
	return out
}
