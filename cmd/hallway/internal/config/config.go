// Package config is the one decoder of the agent's configuration: defaults, then
// hallway.yaml, then the environment, then flags. An unknown key or a value that makes
// no sense is an error that names file and line.
package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/hallway-home/hallway/cmd/hallway/internal/push"
	"github.com/hallway-home/hallway/profiles"
)

// Config of an agent. Push lists the hosts of the push services that this device may tell of a call to a phone which
// asked for that; it talks to none otherwise.
type Config struct {
	Name       string    `yaml:"name" json:"name"`
	Class      string    `yaml:"class" json:"class"`
	Room       string    `yaml:"room" json:"room"`
	Data       string    `yaml:"data" json:"data"`
	Listen     string    `yaml:"listen" json:"listen"`
	Interfaces []string  `yaml:"interfaces" json:"interfaces"`
	Peers      []string  `yaml:"peers" json:"peers"`
	Discovery  Discovery `yaml:"discovery" json:"discovery"`
	NamesOnLAN bool      `yaml:"names-on-lan" json:"names_on_lan"`
	AutoAnswer string    `yaml:"auto-answer" json:"auto_answer"`
	Source     Source    `yaml:"source" json:"source"`
	Sink       Sink      `yaml:"sink" json:"sink"`
	Web        Web       `yaml:"web" json:"web"`
	Push       []string  `yaml:"push" json:"push"`
	Pipelines  string    `yaml:"pipelines" json:"pipelines"`
	Log        Log       `yaml:"log" json:"log"`

	// File is the configuration file that was read, if any.
	File string `yaml:"-" json:"file,omitempty"`
}

// Discovery switches the protocols by which devices find each other on the LAN.
type Discovery struct {
	MDNS bool `yaml:"mdns" json:"mdns"`
	SSDP bool `yaml:"ssdp" json:"ssdp"`
	WSD  bool `yaml:"ws-discovery" json:"ws_discovery"`
}

// Web says how the companion app is served.
type Web struct {
	// Listen is its HTTPS port; empty: 8443 on the member port's address, "off": not at all.
	Listen string `yaml:"listen" json:"listen"`
	// Kiosk is a loopback port where a browser on this device finds it without TLS.
	Kiosk string `yaml:"kiosk" json:"kiosk"`
	// Cert and Key are PEM files shown instead of the home's own certificate.
	Cert string `yaml:"cert" json:"cert"`
	Key  string `yaml:"key" json:"key"`
}

// WebAddr is where the companion is served; empty: nowhere.
func (c Config) WebAddr() string {
	if c.Web.Listen == "off" {
		return ""
	}
	if c.Web.Listen != "" {
		return c.Web.Listen
	}
	host, port, _ := net.SplitHostPort(c.Listen)
	if port == "0" { // several agents on one machine
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, "8443")
}

// Source says where sound and picture come from.
type Source struct {
	Clip     string `yaml:"clip" json:"clip,omitempty"`
	Pipeline string `yaml:"pipeline" json:"pipeline,omitempty"`
}

// Sink says where sound and picture go to.
type Sink struct {
	Record   string `yaml:"record" json:"record,omitempty"`
	Pipeline string `yaml:"pipeline" json:"pipeline,omitempty"`
}

// Log says how the agent speaks to its operator.
type Log struct {
	Level  string `yaml:"level" json:"level"`
	Format string `yaml:"format" json:"format"`
}

// Default is what an agent does without configuration.
func Default() Config {
	return Config{
		Class: "panel", Data: defaultData(), Listen: ":5061", AutoAnswer: "profile",
		Interfaces: []string{}, Peers: []string{}, Discovery: Discovery{MDNS: true, SSDP: true, WSD: true}, Push: push.Services(), Log: Log{Level: "info", Format: "text"},
	}
}

// defaultData follows the XDG base directories; a service that runs as root uses /var/lib.
func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/hallway"
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "hallway")
	}
	if h, err := os.UserHomeDir(); err == nil {
		return filepath.Join(h, ".local", "state", "hallway")
	}
	return "hallway-data"
}

// Socket is where the agent serves its API.
func (c Config) Socket() string { return filepath.Join(c.Data, "hallway.sock") }

// EncoderResults is where it is kept which encoders work on this machine.
func (c Config) EncoderResults() string { return filepath.Join(c.Data, "encoders.json") }

// Load reads the configuration. file may be empty: then ./hallway.yaml and
// /etc/hallway/hallway.yaml are tried. env looks up the environment.
func Load(file string, env func(string) (string, bool)) (Config, error) {
	c := Default()
	named := file != ""
	candidates := []string{"hallway.yaml", "/etc/hallway/hallway.yaml"}
	if named {
		candidates = []string{file}
	}
	for _, f := range candidates {
		data, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) && !named {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("cannot read the configuration: %w", err)
		}
		if err := Decode(f, data, &c); err != nil {
			return c, err
		}
		c.File = f
		break
	}
	applyEnv(&c, env)
	return c, nil
}

// Decode reads YAML strictly over the values already in c.
func Decode(file string, data []byte, c *Config) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(c); err != nil && !strings.Contains(err.Error(), "EOF") {
		return fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	return nil
}

// applyEnv takes the variables that containers and tests use most.
func applyEnv(c *Config, env func(string) (string, bool)) {
	for name, to := range map[string]*string{
		"HALLWAY_NAME": &c.Name, "HALLWAY_CLASS": &c.Class, "HALLWAY_ROOM": &c.Room, "HALLWAY_DATA": &c.Data,
		"HALLWAY_LISTEN": &c.Listen, "HALLWAY_AUTO_ANSWER": &c.AutoAnswer, "HALLWAY_LOG_LEVEL": &c.Log.Level,
	} {
		if v, ok := env(name); ok {
			*to = v
		}
	}
}

// Check says what makes no sense, in one sentence with a next step.
func (c Config) Check() error {
	if _, err := profiles.ForClass(c.Class); err != nil {
		return fmt.Errorf("class: %w", err)
	}
	if !slices.Contains([]string{"profile", "yes", "no"}, c.AutoAnswer) {
		return fmt.Errorf("auto-answer: %q is none of profile, yes, no", c.AutoAnswer)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		return fmt.Errorf("log.level: %q is none of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		return fmt.Errorf("log.format: %q is none of text, json", c.Log.Format)
	}
	if c.Source.Clip != "" && c.Source.Pipeline != "" {
		return errors.New("source: choose clip or pipeline, not both")
	}
	if c.Sink.Record != "" && c.Sink.Pipeline != "" {
		return errors.New("sink: choose record or pipeline, not both")
	}
	if err := c.checkWeb(); err != nil {
		return err
	}
	if c.Data == "" {
		return errors.New("data: a folder is needed; name one with --data")
	}
	_, err := c.Profile()
	if err != nil {
		return err
	}
	if c.Source.Pipeline != "" {
		if _, err := c.pipeline(profiles.SourcePipeline, c.Source.Pipeline); err != nil {
			return fmt.Errorf("source.pipeline: %w", err)
		}
	}
	if c.Sink.Pipeline != "" {
		if _, err := c.pipeline(profiles.SinkPipeline, c.Sink.Pipeline); err != nil {
			return fmt.Errorf("sink.pipeline: %w", err)
		}
	}
	return nil
}

func (c Config) checkWeb() error {
	if (c.Web.Cert == "") != (c.Web.Key == "") {
		return errors.New("web: cert and key go together; name both files, or none")
	}
	if c.Web.Kiosk == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Web.Kiosk)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("web.kiosk: only an address of this device itself can do without TLS, such as localhost:8480")
	}
	return nil
}

// Profile is the class's profile, with the pipelines of the configured file added.
func (c Config) Profile() (profiles.Profile, error) {
	p, err := profiles.ForClass(c.Class)
	if err != nil || c.Pipelines == "" {
		return p, err
	}
	data, err := os.ReadFile(c.Pipelines)
	if err != nil {
		return p, fmt.Errorf("pipelines: %w", err)
	}
	own, err := profiles.Parse(c.Pipelines, data)
	if err != nil {
		return p, err
	}
	own.Pipelines = append(own.Pipelines, p.Pipelines...)
	return own, nil
}

func (c Config) pipeline(kind profiles.PipelineKind, name string) (*profiles.Pipeline, error) {
	p, err := c.Profile()
	if err != nil {
		return nil, err
	}
	l, err := p.Pipeline(kind, name)
	return &l, err
}

// SourcePipeline is the configured source pipeline, or nil.
func (c Config) SourcePipeline() (*profiles.Pipeline, error) {
	if c.Source.Pipeline == "" {
		return nil, nil //nolint:nilnil // no pipeline is no error
	}
	return c.pipeline(profiles.SourcePipeline, c.Source.Pipeline)
}

// SinkPipeline is the configured sink pipeline, or nil.
func (c Config) SinkPipeline() (*profiles.Pipeline, error) {
	if c.Sink.Pipeline == "" {
		return nil, nil //nolint:nilnil // no pipeline is no error
	}
	return c.pipeline(profiles.SinkPipeline, c.Sink.Pipeline)
}

// Sample is the commented configuration file; every line that is commented out shows
// the default.
//
//go:embed hallway.sample.yaml
var Sample string
