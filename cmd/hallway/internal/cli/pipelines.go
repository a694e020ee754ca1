package cli

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions/media"
)

// pipelineState is one codec of one pipeline, as it would run here.
type pipelineState struct {
	Pipeline string `json:"pipeline"`
	Kind     string `json:"kind"`
	Codec    string `json:"codec,omitempty"`
	Encoder  string `json:"encoder,omitempty"`
	Hardware bool   `json:"hardware,omitempty"`
	Works    bool   `json:"works"`
	Why      string `json:"why,omitempty"` // not
	Chosen   bool   `json:"chosen"`        // the configuration names it
	Echo     bool   `json:"echo_cancels,omitempty"`
}

type pipelineTable struct {
	Pipelines []pipelineState `json:"pipelines"`
	Encoders  []media.Trial   `json:"encoders"`
}

func (a *app) volumeCmd() *cobra.Command {
	return &cobra.Command{Use: "volume [0-100]", Short: "Show or set how loud this device plays", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		method, in := http.MethodGet, any(nil)
		if len(args) == 1 {
			level, err := strconv.Atoi(args[0])
			if err != nil || level < 0 || level > media.FullVolume {
				return usage(fmt.Errorf("%q is no volume; it goes from 0 to %d", args[0], media.FullVolume))
			}
			method, in = http.MethodPut, map[string]int{"level": level}
		}
		v, err := ask[api.Volume](cmd.Context(), a, method, "/volume", in)
		if err != nil {
			return err
		}
		return a.show(v, func() {
			if !v.Works {
				a.say("The output of this device has no volume.")
				return
			}
			a.say("Volume %d of %d", v.Level, media.FullVolume)
		})
	}}
}

func (a *app) dndCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "dnd [on|off]", Short: "Show or set whether this device refuses calls (do not disturb)", Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"on", "off"}}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		method, in := http.MethodGet, any(nil)
		if len(args) == 1 {
			method, in = http.MethodPut, api.DND{On: args[0] == "on"}
		}
		d, err := ask[api.DND](cmd.Context(), a, method, "/dnd", in)
		if err != nil {
			return err
		}
		return a.show(d, func() {
			if d.On {
				a.say("Calls are refused. `hallway dnd off` ends it.")
				return
			}
			a.say("Calls ring.")
		})
	}
	return cmd
}

func (a *app) pipelinesCmd() *cobra.Command {
	var again bool
	cmd := &cobra.Command{Use: "pipelines", Short: "Show which pipelines and encoders work on this machine", Args: cobra.NoArgs,
		Long: "Shows the pipelines of this device's class, the encoder that each codec of them would use here, and why others\ndo not work. Each encoder runs for a few frames, once; no camera and no microphone is opened.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			t, kept, err := tryPipelines(cmd.Context(), c, again)
			if err != nil {
				return err
			}
			return a.show(t, func() { a.showPipelines(t, kept) })
		}}
	cmd.Flags().BoolVar(&again, "again", false, "try all encoders again, after new drivers or libraries")
	return cmd
}

// tryPipelines says what works; kept tells why the results could not be kept.
func tryPipelines(ctx context.Context, c config.Config, again bool) (t pipelineTable, kept, err error) {
	p, err := c.Profile()
	if err != nil {
		return t, nil, err
	}
	e, err := media.NewEncoders(p.Encoders, c.EncoderResults())
	if err != nil {
		return t, nil, err
	}
	if again {
		e.Forget()
	}
	t.Encoders, kept = e.All(ctx)
	if ctx.Err() != nil {
		return t, nil, ctx.Err()
	}
	for _, l := range p.Pipelines {
		s := pipelineState{Pipeline: l.Name, Kind: string(l.Kind), Echo: l.EchoCancels}
		s.Chosen = l.Name == map[profiles.PipelineKind]string{profiles.SourcePipeline: c.Source.Pipeline, profiles.SinkPipeline: c.Sink.Pipeline}[l.Kind]
		if _, err := exec.LookPath(l.Command[0]); err != nil {
			s.Why = l.Command[0] + " is not installed"
			t.Pipelines = append(t.Pipelines, s)
			continue
		}
		if l.Kind == profiles.SinkPipeline {
			s.Works = true
			t.Pipelines = append(t.Pipelines, s)
			continue
		}
		for _, kind := range profiles.Kinds() {
			if part := l.Of(kind); part != nil {
				t.Pipelines = append(t.Pipelines, codecStates(ctx, e, s, l.Command[0], *part)...)
			}
		}
	}
	return t, kept, nil
}

func codecStates(ctx context.Context, e *media.Encoders, s pipelineState, program string, part profiles.Stream) (out []pipelineState) {
	for _, codec := range part.Codecs {
		s := s
		s.Codec, s.Works = codec, true
		if slices.Contains(part.Output, "{{.Encoder}}") {
			x, err := e.Pick(ctx, program, codec)
			s.Encoder, s.Hardware, s.Works = x.Name, x.Hardware, err == nil
			if err != nil {
				s.Why = "no encoder works"
			}
		}
		out = append(out, s)
	}
	return out
}

func (a *app) showPipelines(t pipelineTable, kept error) {
	var rows [][]string
	for _, s := range t.Pipelines {
		can := "yes"
		switch {
		case !s.Works:
			can = strings.TrimSpace(s.Codec + " no: " + s.Why)
		case s.Encoder != "":
			can = s.Codec + " by " + s.Encoder
		case s.Codec != "":
			can = s.Codec
		}
		if n := len(rows); n > 0 && rows[n-1][0] == s.Pipeline && rows[n-1][1] == s.Kind {
			rows[n-1][3] += ", " + can
			continue
		}
		rows = append(rows, []string{s.Pipeline, s.Kind, yes(s.Chosen), can})
	}
	a.table([]string{"PIPELINE", "KIND", "CHOSEN", "WORKS"}, rows)
	a.say("")
	rows = nil
	for _, x := range t.Encoders {
		works := fmt.Sprintf("yes, in %v", x.Took.Round(10*time.Millisecond))
		if !x.Works {
			works = "no: " + x.Why
		}
		rows = append(rows, []string{x.Name, strings.TrimSuffix(x.Program, "-launch-1.0"), x.Codec, yes(x.Hardware), works})
	}
	a.table([]string{"ENCODER", "OF", "CODEC", "HARDWARE", "WORKS"}, rows)
	if kept != nil {
		a.say("\n%v; the agent tries its own when it needs them", kept)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
