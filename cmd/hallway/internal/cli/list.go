package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

func (a *app) devicesCmd() *cobra.Command {
	var all, watch bool
	cmd := &cobra.Command{Use: "devices", Short: "List the devices of the home", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&all, "all", false, "also what is in sight but belongs to no home of yours")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, showing changes as they happen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := ask[api.Devices](cmd.Context(), a, http.MethodGet, "/devices", nil)
		if err != nil {
			return err
		}
		if !all {
			d.Foreign = nil
		}
		if err := a.show(d, func() { a.devicesTable(d) }); err != nil || !watch {
			return err
		}
		return a.watch(cmd.Context(), func(e api.Event) bool { return e.Change != nil && (all || e.Change.Device != nil) }, func(e api.Event) {
			if d := e.Change.Device; d != nil {
				a.say("%-8s %s  %s", e.Change.Kind, d.Slug, statusWords(*d))
			} else {
				f := e.Change.Foreign
				a.say("%-8s %s  %s, foreign, by %s at %s", e.Change.Kind, f.Name, f.Is, strings.Join(f.Protocols, " "), addrOf(*f))
			}
		})
	}
	return cmd
}

func (a *app) devicesTable(d api.Devices) {
	var rows [][]string
	for _, x := range d.Devices {
		self := ""
		if x.Self {
			self = "this device"
		}
		rows = append(rows, []string{x.Slug, x.Name, orDash(x.Room), string(x.Class), statusWords(x), can(x.Capabilities), self})
	}
	names := map[devices.NodeID]string{}
	for _, x := range d.Devices {
		names[x.Node] = x.Slug
	}
	for _, x := range d.Adopted {
		by := "nobody speaks for it"
		if n := names[x.Node]; n != "" {
			by = n + " speaks for it"
		}
		if x.Fault != "" {
			by += ": " + x.Fault
		}
		rows = append(rows, []string{x.Slug, x.Name, orDash(x.Room), string(x.Class), statusWords(x), can(x.Capabilities), by})
	}
	for _, x := range d.Panels {
		by := ""
		if n := names[x.Node]; n != "" {
			by = "a browser, through " + n
		}
		rows = append(rows, []string{x.Slug, x.Name, orDash(x.Room), string(x.Class), string(x.Status), can(x.Capabilities), by})
	}
	if len(rows) == 0 {
		a.say("No devices yet. `hallway home create` makes a home; `hallway pair` joins one.")
	} else {
		a.table([]string{"NAME", "CALLED", "ROOM", "CLASS", "STATUS", "CAN", ""}, rows)
	}
	if len(d.Foreign) > 0 {
		a.foreignTable(d.Foreign)
	}
}

// can says what a device does in few letters: it sees and speaks, shows and plays.
func can(c profiles.Capabilities) string {
	var out []string
	for _, m := range []struct {
		kind string
		d    profiles.Direction
	}{{"audio", c.Audio.Direction}, {"video", c.Video.Direction}} {
		switch m.d {
		case profiles.SendRecv:
			out = append(out, m.kind+" both ways")
		case profiles.SendOnly:
			out = append(out, m.kind+" out")
		case profiles.RecvOnly:
			out = append(out, m.kind+" in")
		case profiles.Inactive:
		}
	}
	return orDash(strings.Join(out, ", "))
}

// statusWords says whether a device can be called now.
func statusWords(d devices.Device) string {
	if d.Presence == devices.Busy || d.Presence == devices.DND {
		return string(d.Status) + ", " + presenceWords(d.Presence)
	}
	return string(d.Status)
}

func presenceWords(p devices.Presence) string {
	if p == devices.DND {
		return "do not disturb"
	}
	return string(p)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// watch follows the event stream until interrupted.
func (a *app) watch(ctx context.Context, keep func(api.Event) bool, human func(api.Event)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	err = c.Events(ctx, func(e api.Event) error {
		if !keep(e) {
			return nil
		}
		return a.show(e, func() { human(e) })
	})
	switch {
	case ctx.Err() != nil: // people end it with Ctrl-C
		return ctx.Err()
	case err == nil:
		return fmt.Errorf("%w any more: it stopped", api.ErrNoAgent)
	}
	return err
}

func (a *app) roomsCmd() *cobra.Command {
	return &cobra.Command{Use: "rooms", Short: "List rooms, groups and persons", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		r, err := ask[api.Rooms](cmd.Context(), a, http.MethodGet, "/rooms", nil)
		if err != nil {
			return err
		}
		return a.show(r, func() {
			var rows [][]string
			for _, x := range r.Rooms {
				rows = append(rows, []string{x.Slug, x.Name, "room", ""})
			}
			for _, x := range r.Groups {
				rows = append(rows, []string{x.Slug, x.Name, "group", strings.Join(x.Members, " ")})
			}
			for _, x := range r.Persons {
				rows = append(rows, []string{x.Slug, x.Name, "person", fmt.Sprintf("%d phones, %s", len(x.Nodes), presenceWords(x.Presence))})
			}
			if len(rows) == 0 {
				a.say("No rooms yet. `hallway home room NAME` makes one; so does adding a device with --room.")
				return
			}
			a.table([]string{"NAME", "CALLED", "KIND", "MEMBERS"}, rows)
		})
	}}
}

func (a *app) resolveCmd() *cobra.Command {
	return &cobra.Command{Use: "resolve NAME", Short: "Say what a name means now", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := ask[devices.Resolution](cmd.Context(), a, http.MethodGet, "/resolve/"+api.Escape(devices.Slug(args[0])), nil)
		if err != nil {
			return err
		}
		return a.show(r, func() {
			a.say("%s is the %s %s", r.AOR, r.Kind, r.Name)
			for _, d := range r.Devices {
				a.say("  %s  %s", d.Slug, d.Status)
			}
		})
	}}
}

func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usage(fmt.Errorf("%w; usage: %s", err, cmd.UseLine()))
		}
		return nil
	}
}

func (a *app) profilesCmd() *cobra.Command {
	return &cobra.Command{Use: "profiles", Short: "List the classes of device and their pipelines", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		all, err := profiles.All()
		if err != nil {
			return err
		}
		return a.show(api.Profiles{Profiles: all}, func() {
			var rows [][]string
			for _, p := range all {
				var pipes []string
				for _, l := range p.Pipelines {
					pipes = append(pipes, l.Name)
				}
				rows = append(rows, []string{p.Class, p.Title, can(p.Capabilities), strings.Join(pipes, " ")})
			}
			a.table([]string{"CLASS", "CALLED", "CAN", "PIPELINES"}, rows)
		})
	}}
}

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show, check or begin a configuration"}
	cmd.AddCommand(
		&cobra.Command{Use: "show", Short: "Show the configuration in force", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			return a.show(c, func() {
				b, _ := json.MarshalIndent(c, "", "  ")
				a.say("%s", b)
			})
		}},
		&cobra.Command{Use: "check", Short: "Say whether the configuration makes sense", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			return a.show(map[string]string{"file": c.File, "ok": "yes"}, func() { a.say("The configuration is good (%s).", fileOr(c)) })
		}},
		&cobra.Command{Use: "sample", Short: "Print a commented sample", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			return a.show(map[string]string{"sample": config.Sample}, func() { a.say("%s", strings.TrimRight(config.Sample, "\n")) })
		}})
	return cmd
}

func fileOr(c config.Config) string {
	if c.File == "" {
		return "no file; defaults, environment and flags"
	}
	return c.File
}
