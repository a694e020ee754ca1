package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

func (a *app) callCmd() *cobra.Command {
	var soundOnly, detach bool
	var length time.Duration
	cmd := &cobra.Command{Use: "call NAME", Short: "Call a device, room, group or person", Args: exactly(1)}
	cmd.Flags().BoolVar(&soundOnly, "no-video", false, "sound only")
	cmd.Flags().DurationVar(&length, "for", 0, "hang up after this time")
	cmd.Flags().BoolVar(&detach, "detach", false, "return once the call is on its way; `hallway hangup` ends it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		c, err := ask[sessions.CallInfo](ctx, a, http.MethodPost, "/calls", map[string]any{"to": args[0], "video": !soundOnly})
		if err != nil {
			return err
		}
		if detach {
			return a.show(c, func() { a.say("calling %s (%s)", c.To, c.ID[:8]) })
		}
		return a.follow(ctx, c, length)
	}
	return cmd
}

// follow shows a call until it ends; an interrupt hangs up.
func (a *app) follow(ctx context.Context, c sessions.CallInfo, length time.Duration) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	shown := ""
	for {
		if err := client.Do(context.WithoutCancel(ctx), http.MethodGet, "/calls/"+c.ID, nil, &c); err != nil {
			return err
		}
		if line := progress(c); line != shown {
			shown = line
			if err := a.show(c, func() { a.say("%s", line) }); err != nil {
				return err
			}
		}
		if c.State == sessions.StateEnded {
			return outcome(c)
		}
		if length > 0 && c.State == sessions.StateActive && time.Since(c.Answered) > length {
			length = 0
			if err := client.Do(ctx, http.MethodDelete, "/calls/"+c.ID, nil, nil); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx)
			_ = client.Do(ctx, http.MethodDelete, "/calls/"+c.ID, nil, nil)
		case <-tick.C:
		}
	}
}

// progress says where a call stands, in one line.
func progress(c sessions.CallInfo) string {
	switch c.State {
	case sessions.StateCalling:
		return fmt.Sprintf("calling %s", c.To.Slug)
	case sessions.StateRinging:
		n := 0
		for _, b := range c.Branches {
			if b.State == string(sessions.StateRinging) {
				n++
			}
		}
		return fmt.Sprintf("ringing at %d of %d devices", n, len(c.Branches))
	case sessions.StateActive:
		line := fmt.Sprintf("%s with %s: %s", stateWords(c), c.Peer, mediaLine(c))
		if len(c.Trouble) > 0 {
			line += " (" + strings.Join(c.Trouble, " ") + ")"
		}
		return line
	case sessions.StateIncoming:
		return fmt.Sprintf("%s is calling", c.From.Slug)
	case sessions.StateEnded:
		return "ended: " + c.Reason
	}
	return string(c.State)
}

func mediaLine(c sessions.CallInfo) string {
	var out []string
	for _, m := range c.Media {
		if m.Direction != profiles.Inactive {
			out = append(out, fmt.Sprintf("%s %s %s", m.Kind, m.Codec, m.Direction))
		}
	}
	return strings.Join(out, ", ")
}

// outcome turns a call's ending into an exit code.
func outcome(c sessions.CallInfo) error {
	err := errors.New(c.Reason)
	switch c.Code {
	case 200:
		return nil
	case 404:
		return exitError{ExitNotFound, err}
	case 403:
		return exitError{ExitForbidden, err}
	case 480, 486, 487, 603:
		return exitError{ExitNoAnswer, err}
	case 503:
		return exitError{ExitUnreachable, err}
	case 488, 406, 415:
		return exitError{ExitNoCodec, err}
	}
	return exitError{ExitError, err}
}

func (a *app) callsCmd() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{Use: "calls", Short: "List living and recent calls", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, with statistics each second")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for {
			calls, err := ask[[]sessions.CallInfo](cmd.Context(), a, http.MethodGet, "/calls", nil)
			if err != nil {
				return err
			}
			if err := a.show(calls, func() { a.callsTable(calls) }); err != nil || !watch {
				return err
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	return cmd
}

func (a *app) callsTable(calls []sessions.CallInfo) {
	if len(calls) == 0 {
		a.say("No calls yet. `hallway call NAME` makes one.")
		return
	}
	var rows [][]string
	for _, c := range calls {
		s := c.Stats
		rows = append(rows, []string{
			c.ID[:8], c.Direction, c.From.Slug, c.To.Slug, stateWords(c), orDash(c.Peer),
			fmt.Sprintf("%d/%d", s.Audio.PacketsReceived, s.Video.PacketsReceived), fmt.Sprintf("%d/%d", s.Audio.Lost+s.Video.Lost, s.Audio.Peer.Lost+s.Video.Peer.Lost),
			fmt.Sprintf("%.1f/%.1f ms", s.Audio.JitterMs, s.Video.JitterMs), fmt.Sprintf("%.1f ms", float64(s.RTT.Microseconds())/1000),
			orDash(strings.Join(append(c.Trouble, nonEmpty(c.Reason)...), " ")),
		})
	}
	a.table([]string{"CALL", "WAY", "FROM", "TO", "STATE", "WITH", "SOUND/PICTURE", "LOST HERE/THERE", "JITTER", "ROUND TRIP", "WHY"}, rows)
}

// stateWords is the state of a call with what its sides want of it.
func stateWords(c sessions.CallInfo) string {
	out := []string{string(c.State)}
	for _, w := range []struct {
		on    bool
		words string
	}{{c.Hold, "on hold"}, {c.PeerHold, "held by them"}, {c.Muted, "muted"}, {c.PeerMuted, "they are muted"}} {
		if w.on && c.State == sessions.StateActive {
			out = append(out, w.words)
		}
	}
	if c.Digits != "" {
		out = append(out, "they pressed "+c.Digits)
	}
	return strings.Join(out, ", ")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (a *app) decideCmd(verb, short string) *cobra.Command {
	return &cobra.Command{Use: verb + " [CALL]", Short: short, Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := a.which(cmd.Context(), verb, args)
		if err != nil {
			return err
		}
		method, path, said := http.MethodPost, "/calls/"+api.Escape(id)+"/"+verb, "Accepted."
		switch verb {
		case "decline":
			said = "Declined."
		case "hangup":
			method, path, said = http.MethodDelete, "/calls/"+api.Escape(id), "Hung up."
		}
		return a.do(cmd.Context(), method, path, nil, said)
	}}
}

// changeCmd changes a running call.
func (a *app) changeCmd(verb, short string, change map[string]any, said string) *cobra.Command {
	return &cobra.Command{Use: verb + " [CALL]", Short: short, Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return a.changeCall(cmd.Context(), verb, args, change, said)
	}}
}

func (a *app) videoCmd() *cobra.Command {
	said := map[string]string{"on": "The picture is on.", "receive": "Only the other side's picture is shown.", "off": "The picture is off."}
	return &cobra.Command{Use: "video on|receive|off [CALL]", Short: "Add or drop the picture of a running call", Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		if said[args[0]] == "" {
			return usage(fmt.Errorf("%q is none of on, receive, off; `hallway video --help` says more", args[0]))
		}
		return a.changeCall(cmd.Context(), "video "+args[0], args[1:], map[string]any{"video": args[0]}, said[args[0]])
	}}
}

func (a *app) changeCall(ctx context.Context, verb string, args []string, change map[string]any, said string) error {
	id, err := a.which(ctx, verb, args)
	if err != nil {
		return err
	}
	c, err := ask[sessions.CallInfo](ctx, a, http.MethodPatch, "/calls/"+api.Escape(id), change)
	if err != nil {
		return err
	}
	return a.show(c, func() { a.say("%s", said) })
}

// which finds the call that is meant when none is named: the only one that fits.
func (a *app) which(ctx context.Context, verb string, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	calls, err := ask[[]sessions.CallInfo](ctx, a, http.MethodGet, "/calls", nil)
	if err != nil {
		return "", err
	}
	var fit []string
	for _, c := range calls {
		fits := c.State == sessions.StateActive // what changes a running call
		switch verb {
		case "answer", "decline":
			fits = c.State == sessions.StateIncoming
		case "hangup":
			fits = c.State != sessions.StateEnded
		}
		if fits {
			fit = append(fit, c.ID)
		}
	}
	switch len(fit) {
	case 0:
		return "", exitError{ExitNotFound, errors.New("no call waits for that here")}
	case 1:
		return fit[0], nil
	}
	return "", usage(fmt.Errorf("several calls fit (%s); name one: `hallway %s CALL`", strings.Join(fit, ", "), verb))
}
