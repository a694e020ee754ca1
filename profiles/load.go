package profiles

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
)

//go:embed data/*.yaml
var embedded embed.FS

// Profile is a class of device.
type Profile struct {
	Class        string       `yaml:"class" json:"class"`
	Title        string       `yaml:"title" json:"title"`
	Capabilities Capabilities `yaml:"capabilities" json:"capabilities"`
	Behaviour    Behaviour    `yaml:"behaviour" json:"behaviour"`
	Pipelines    []Pipeline   `yaml:"pipelines" json:"pipelines"`
	Encoders     []Encoder    `yaml:"encoders,omitempty" json:"encoders,omitempty"` // of this machine, tried before those that ship
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
	for _, e := range p.Encoders {
		if err := e.check(); err != nil {
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
