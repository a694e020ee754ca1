package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/emiago/sipgo/sip"
	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/agent"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
)

func (a *app) upCmd() *cobra.Command {
	var f config.Config
	var join, clip, source, record, sink string
	cmd := &cobra.Command{Use: "up", Short: "Run the agent", Args: cobra.NoArgs}
	fl := cmd.Flags()
	fl.StringVar(&f.Name, "name", "", "what the device asks to be called")
	fl.StringVar(&f.Class, "class", "", "what it is: tv, camera, doorbell, stb, speaker, panel, phone")
	fl.StringVar(&f.Room, "room", "", "the room it stands in")
	fl.StringVar(&f.Listen, "listen", "", "member port (default :5061)")
	fl.StringSliceVar(&f.Interfaces, "interface", nil, "network interface to use; repeat for more")
	fl.StringSliceVar(&f.Peers, "peer", nil, "host:port of a device that multicast cannot reach")
	fl.BoolVar(&f.NamesOnLAN, "names-on-lan", false, "show the device's name to everybody on the LAN")
	fl.StringVar(&f.AutoAnswer, "auto-answer", "", "profile, yes or no")
	fl.StringVar(&clip, "source-clip", "", "Matroska file to send")
	fl.StringVar(&source, "source-pipeline", "", "pipeline of the profile to send from")
	fl.StringVar(&record, "sink-record", "", "folder for recordings of what is received")
	fl.StringVar(&sink, "sink-pipeline", "", "pipeline of the profile to show and play with")
	fl.StringVar(&f.Log.Level, "log-level", "", "debug, info, warn or error")
	fl.StringVar(&join, "join", "", "join token of `hallway invite`, or a file that holds one")
	a.overlay = func(c *config.Config) {
		set := func(name string, to *string, v string) {
			if fl.Changed(name) {
				*to = v
			}
		}
		set("name", &c.Name, f.Name)
		set("class", &c.Class, f.Class)
		set("room", &c.Room, f.Room)
		set("listen", &c.Listen, f.Listen)
		set("auto-answer", &c.AutoAnswer, f.AutoAnswer)
		set("log-level", &c.Log.Level, f.Log.Level)
		set("source-clip", &c.Source.Clip, clip)
		set("source-pipeline", &c.Source.Pipeline, source)
		set("sink-record", &c.Sink.Record, record)
		set("sink-pipeline", &c.Sink.Pipeline, sink)
		if fl.Changed("interface") {
			c.Interfaces = f.Interfaces
		}
		if fl.Changed("peer") {
			c.Peers = f.Peers
		}
		if fl.Changed("names-on-lan") {
			c.NamesOnLAN = f.NamesOnLAN
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.load()
		if err != nil {
			return err
		}
		token, err := joinToken(join, c)
		if err != nil {
			return usage(err)
		}
		sip.SetDefaultLogger(slog.New(slog.DiscardHandler)) // the library also writes past the logger it is given
		return agent.Run(cmd.Context(), c, agent.Options{
			Logger: logger(a, c.Log), Version: a.build.Version, JoinToken: token,
			Ready: func(socket string) {
				_, _ = fmt.Fprintf(a.err, "hallway: ready; commands reach this agent at %s\n", socket)
			},
		})
	}
	return cmd
}

// joinToken takes the token from the flag, from a file it names, or from the file
// "join" beside the configuration.
func joinToken(flag string, c config.Config) (string, error) {
	var file string
	switch {
	case strings.HasPrefix(strings.ToLower(flag), "hw1-"):
		return flag, nil
	case flag != "":
		file = flag
	case c.File != "":
		file = filepath.Join(filepath.Dir(c.File), "join")
	default:
		return "", nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && flag == "" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func logger(a *app, l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked by the configuration
	opt := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.err, opt))
	}
	return slog.New(slog.NewTextHandler(a.err, opt))
}
