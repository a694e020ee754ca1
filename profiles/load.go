package profiles

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

//go:embed data/*.yaml
var embedded embed.FS

// PipelineKind says which end of the media a pipeline is.
type PipelineKind string

// The two ends.
const (
	SourcePipeline PipelineKind = "source"
	SinkPipeline   PipelineKind = "sink"
)

// Pipeline is a program that makes or takes media. Commands come from profiles and files
// on disk only, never from the API. The words {{.VideoPort}}, {{.AudioPort}} (a source
// sends RTP there, on 127.0.0.1) and {{.SDP}} (a file that tells a sink where RTP comes)
// are filled in.
type Pipeline struct {
	Name    string       `yaml:"name" json:"name"`
	Kind    PipelineKind `yaml:"kind" json:"kind"`
	About   string       `yaml:"about" json:"about"`
	Command []string     `yaml:"command" json:"command"`
	Video   *Codec       `yaml:"video,omitempty" json:"video,omitempty"` // what a source sends
	Audio   *Codec       `yaml:"audio,omitempty" json:"audio,omitempty"`
	// EchoFree: what this source sends has no echo of the device's own loudspeaker in it, since
	// it cancels it or has no microphone.
	EchoFree bool `yaml:"echo-free,omitempty" json:"echo_free,omitempty"`
}

// Profile is a class of device.
type Profile struct {
	Class        string       `yaml:"class" json:"class"`
	Title        string       `yaml:"title" json:"title"`
	Capabilities Capabilities `yaml:"capabilities" json:"capabilities"`
	Behaviour    Behaviour    `yaml:"behaviour" json:"behaviour"`
	Pipelines    []Pipeline   `yaml:"pipelines" json:"pipelines"`
}

// Parse reads a profile strictly: an unknown key, a wrong type or a value that makes no
// sense is an error that names file, line and column.
func Parse(file string, data []byte) (Profile, error) {
	var p Profile
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&p); err != nil {
		return Profile{}, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	if err := p.check(); err != nil {
		return Profile{}, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

func (p Profile) check() error {
	if p.Class == "" || p.Title == "" {
		return fmt.Errorf("a profile needs class and title")
	}
	for _, name := range []string{"audio", "video"} {
		m := map[string]Medium{"audio": p.Capabilities.Audio, "video": p.Capabilities.Video}[name]
		if !slices.Contains([]Direction{SendRecv, SendOnly, RecvOnly, Inactive}, m.Direction) {
			return fmt.Errorf("%s: direction %q is none of sendrecv, sendonly, recvonly, inactive", name, m.Direction)
		}
		if !m.Direction.none() && len(m.Codecs) == 0 {
			return fmt.Errorf("%s: %s needs at least one codec", name, m.Direction)
		}
	}
	if p.Behaviour.RingTimeout < time.Second || p.Behaviour.MaxCalls < 1 {
		return fmt.Errorf("behaviour: ring-timeout must be at least 1s and max-calls at least 1")
	}
	for _, l := range p.Pipelines {
		if err := l.check(); err != nil {
			return err
		}
	}
	return nil
}

// All returns the embedded profiles, by class.
func All() ([]Profile, error) {
	files, err := fs.Glob(embedded, "data/*.yaml")
	if err != nil {
		return nil, err
	}
	var out []Profile
	for _, f := range files {
		data, err := embedded.ReadFile(f)
		if err != nil {
			return nil, err
		}
		p, err := Parse(path.Base(f), data)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Profile) int { return bytes.Compare([]byte(a.Class), []byte(b.Class)) })
	return out, nil
}

// ForClass returns one embedded profile. It reads that one alone: a device needs no other.
func ForClass(class string) (Profile, error) {
	file := class + ".yaml"
	if class == "stb" {
		file = "set-top-box.yaml"
	}
	if data, err := embedded.ReadFile("data/" + file); err == nil {
		if p, err := Parse(file, data); err != nil || p.Class == class {
			return p, err
		}
	}
	all, err := All()
	if err != nil {
		return Profile{}, err
	}
	var names []string
	for _, p := range all {
		if p.Class == class {
			return p, nil
		}
		names = append(names, p.Class)
	}
	return Profile{}, fmt.Errorf("there is no profile for class %q; the classes are %v", class, names)
}

// check that the command and what is said about it fit together.
func (l Pipeline) check() error {
	if l.Name == "" || len(l.Command) == 0 || l.Kind != SourcePipeline && l.Kind != SinkPipeline {
		return fmt.Errorf("pipeline %q needs a name, a kind (source or sink) and a command", l.Name)
	}
	text := strings.Join(l.Command, " ")
	for _, kind := range []string{"Video", "Audio"} { // in this order: one mistake has one message
		codec := map[string]*Codec{"Video": l.Video, "Audio": l.Audio}[kind]
		word := "{{." + kind + "Port}}"
		if l.Kind == SourcePipeline && (codec != nil) != strings.Contains(text, word) {
			return fmt.Errorf("pipeline %q: a source that sends %s names its codec and has %s in its command", l.Name, strings.ToLower(kind), word)
		}
	}
	if l.Kind == SourcePipeline && l.Video == nil && l.Audio == nil {
		return fmt.Errorf("pipeline %q: a source names the codec of what it sends, under video or audio", l.Name)
	}
	if l.Kind == SinkPipeline && !strings.Contains(text, "{{.SDP}}") {
		return fmt.Errorf("pipeline %q: a sink needs {{.SDP}} in its command, the file that says where RTP comes", l.Name)
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
