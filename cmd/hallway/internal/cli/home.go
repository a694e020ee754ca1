package cli

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

func (a *app) pairCmd() *cobra.Command {
	var minutes int
	var noWait bool
	cmd := &cobra.Command{Use: "pair", Short: "Show a code, so that an owner can add this device", Args: cobra.NoArgs}
	cmd.Flags().IntVar(&minutes, "minutes", 0, "how long the code works (default 3, at most 15)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "show the code and return")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		p, err := ask[api.PairState](ctx, a, http.MethodPost, "/pair", map[string]int{"minutes": minutes})
		if err != nil {
			return err
		}
		if err := a.show(p, func() { a.showCode(p) }); err != nil || noWait {
			return err
		}
		state := p.State
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(200 * time.Millisecond):
			}
			if p, err = ask[api.PairState](ctx, a, http.MethodGet, "/pair", nil); err != nil {
				return err
			}
			if p.State == state {
				continue
			}
			state = p.State
			if err := a.show(p, func() { a.sayPairing(p) }); err != nil {
				return err
			}
			switch state {
			case "joined":
				return nil
			case "closed", "failed":
				return exitError{ExitForbidden, errors.New(p.Reason)}
			}
		}
	}
	return cmd
}

func (a *app) showCode(p api.PairState) {
	if a.terminal() {
		a.drawQR(p.QR)
	}
	a.say("Code      %s", p.Code)
	a.say("Device    %s", p.ShortID)
	a.say("Until     %s", p.Until.Local().Format("15:04:05"))
	a.say("\nOn an owner of the home:  hallway add %s %s", p.ShortID, strings.ReplaceAll(p.Code, " ", ""))
}

func (a *app) sayPairing(p api.PairState) {
	switch p.State {
	case "naming":
		a.say("The code was right. An owner gives this device its name ...")
	case "joining":
		a.say("Joining the home %q as %q%s ...", p.Home, p.Name, inRoom(p.Room))
	case "joined":
		a.say("Joined. `hallway devices` shows the home.")
	}
}

func inRoom(room string) string {
	if room == "" {
		return ""
	}
	return " in " + room
}

// drawQR draws two rows of modules a line, dark on light.
func (a *app) drawQR(text string) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return
	}
	for y := -2; y < code.Size+2; y += 2 {
		var b strings.Builder
		for x := -2; x < code.Size+2; x++ {
			top, bottom := code.Black(x, y), code.Black(x, y+1)
			switch {
			case top && bottom:
				b.WriteString(" ")
			case top:
				b.WriteString("▄")
			case bottom:
				b.WriteString("▀")
			default:
				b.WriteString("█")
			}
		}
		a.say("%s", b.String())
	}
}

func (a *app) addCmd() *cobra.Command {
	var req api.AddRequest
	var role string
	cmd := &cobra.Command{Use: "add [DEVICE] CODE", Short: "Add the device that shows this code", Args: cobra.RangeArgs(1, 4)}
	cmd.Flags().StringVar(&req.Name, "name", "", "what to call it")
	cmd.Flags().StringVar(&req.Room, "room", "", "the room it stands in")
	cmd.Flags().StringVar(&role, "role", "device", "device, or owner: may change the home too")
	cmd.Flags().StringVar(&req.Addr, "addr", "", "host:port of the device, where multicast does not reach")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args[0]) == 4 { // codes come in groups of three digits
			req.ID, args = args[0], args[1:]
		}
		req.Code, req.Role = strings.Join(args, ""), devices.Role(role)
		m, err := ask[api.Member](cmd.Context(), a, http.MethodPost, "/add", req)
		if err != nil {
			return err
		}
		return a.show(m, func() { a.say("Added %s as %s%s.", m.Name, m.Slug, inRoom(m.Room)) })
	}
	return cmd
}

func (a *app) inviteCmd() *cobra.Command {
	var minutes int
	var seed string
	cmd := &cobra.Command{Use: "invite", Short: "Make a one-time token for a device without a screen", Args: cobra.NoArgs}
	cmd.Flags().IntVar(&minutes, "minutes", 0, "how long it works (default 3, at most 15)")
	cmd.Flags().StringVar(&seed, "seed", "", "host:port of this device, for networks without multicast")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		i, err := ask[api.InviteState](cmd.Context(), a, http.MethodPost, "/invite", map[string]any{"minutes": minutes, "seed": seed})
		if err != nil {
			return err
		}
		return a.show(i, func() {
			a.say("%s\n\nIt works once, until %s. On the new device:  hallway up --join %s", i.Token, i.Until.Local().Format("15:04:05"), i.Token)
		})
	}
	return cmd
}
