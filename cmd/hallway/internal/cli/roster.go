package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

func (a *app) homeCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "home", Short: "Make, show and change the home"}
	cmd.AddCommand(a.homeCreateCmd(), a.homeShowCmd(), a.homeLogCmd(), a.homeRemoveCmd(), a.homeRecoverCmd(), a.homeCheckpointCmd(), a.homeRenameCmd(),
		a.homeRoleCmd(), a.homeTrustCmd(), a.homeRoomCmd(), a.homeSetCmd("group", "/home/groups", "devices, rooms and persons"),
		a.homeSetCmd("person", "/home/persons", "phones"), a.homeForeignCmd(), a.homeRuleCmd())
	return cmd
}

func (a *app) homeCreateCmd() *cobra.Command {
	return &cobra.Command{Use: "create NAME", Short: "Make a home with this device as its first owner", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := ask[struct {
			Recovery string `json:"recovery"`
		}](cmd.Context(), a, http.MethodPost, "/home", map[string]string{"name": args[0]})
		if err != nil {
			return err
		}
		return a.show(r, func() {
			a.say("The home %q is born. Its recovery code is shown only now; write it down and keep it safe:\n\n    %s\n\nAdd devices with `hallway pair` on them and `hallway add` here.", args[0], r.Recovery)
		})
	}}
}

func (a *app) homeShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show", Aliases: []string{"members"}, Short: "Show the home, who belongs, and its rules", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		h, err := ask[api.Home](cmd.Context(), a, http.MethodGet, "/home", nil)
		if err != nil {
			return err
		}
		return a.show(h, func() { a.showHome(h) })
	}}
}

func (a *app) showHome(h api.Home) {
	a.say("%s  (%s, %d edits)\n", h.Name, h.Domain, h.Epoch)
	var rows [][]string
	for _, m := range h.Members {
		rows = append(rows, []string{m.Slug, m.Name, orDash(m.Room), string(m.Class), string(m.Role), m.Node.Short()})
	}
	for _, f := range h.Foreign {
		rows = append(rows, []string{f.Slug, f.Name, orDash(f.Room), orDash(string(f.Class)), "foreign", "-"})
	}
	a.table([]string{"NAME", "CALLED", "ROOM", "CLASS", "ROLE", "NODE"}, rows)
	if len(h.Rules) > 0 {
		a.say("")
		a.showRules(h.Rules)
	}
	for _, p := range h.Proposals {
		a.say("\n%s wants %s removed. Another owner agrees with `hallway home remove %s`.", p.By, p.Target, p.Target)
	}
}

func (a *app) showRules(rules []devices.Rule) {
	var rows [][]string
	for _, r := range rules {
		who := strings.Join(r.Who, ", ")
		if who == "" {
			who = "nobody"
		}
		rows = append(rows, []string{r.Subject, string(r.Right), who, orDash(r.Hours)})
	}
	a.table([]string{"ON", "RIGHT", "WHO", "HOURS"}, rows)
}

func (a *app) homeLogCmd() *cobra.Command {
	return &cobra.Command{Use: "log", Short: "List every change of the home, in the order in which they count", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		list, err := ask[[]api.LogEntry](cmd.Context(), a, http.MethodGet, "/home/log", nil)
		if err != nil {
			return err
		}
		return a.show(list, func() {
			var rows [][]string
			for _, e := range list {
				rows = append(rows, []string{strconv.Itoa(e.Number), e.Hash[:8], e.By, e.What, orDash(e.Void)})
			}
			a.table([]string{"NR", "EDIT", "BY", "WHAT", "NO EFFECT BECAUSE"}, rows)
		})
	}}
}

func (a *app) homeRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a device for good", Args: exactly(1),
		Long: "Remove a device for good: it can join again only with a new key.\n\n" +
			"An owner removes devices, and the owners that it made, at once. Another owner it only proposes to remove: a second\n" +
			"owner who runs the same command agrees, and after 24 hours the first may run it again. `home recover` beats both.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := ask[api.Removal](cmd.Context(), a, http.MethodDelete, "/home/members/"+api.Escape(args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(r, func() {
				switch {
				case r.State == "removed":
					a.say("Removed %s. It can join again only with a new key.", args[0])
				case r.Until.IsZero():
					a.say("Proposed. %s is removed once a second owner runs `hallway home remove %s`; this device does not know the time, so it cannot do it alone.", args[0], args[0])
				default:
					a.say("Proposed. %s is removed once a second owner runs `hallway home remove %s`, or you run it again after %s.", args[0], args[0], r.Until.Local().Format("Mon 15:04"))
				}
			})
		},
	}
}

func (a *app) homeRecoverCmd() *cobra.Command {
	var remove []string
	cmd := &cobra.Command{
		Use: "recover [CODE]", Short: "Make this device an owner with the recovery code", Args: cobra.MaximumNArgs(1),
		Long: "Make this device an owner with the recovery code of the home, and remove lost devices with --remove.\n" +
			"Without CODE it is asked for, or read from standard input, so that it stays out of the shell's history.",
	}
	cmd.Flags().StringSliceVar(&remove, "remove", nil, "also remove this device; may be given again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code := strings.Join(args, "")
		if code == "" {
			var err error
			if code, err = a.askCode(cmd.Context()); err != nil {
				return err
			}
		}
		said := "This device is an owner of the home now."
		if len(remove) > 0 {
			said += " Removed: " + strings.Join(remove, ", ") + "."
		}
		return a.do(cmd.Context(), http.MethodPost, "/home/recover", map[string]any{"code": code, "remove": remove}, said)
	}
	return cmd
}

func (a *app) homeCheckpointCmd() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint [CODE]", Short: "Compact the home's history with the recovery code", Args: cobra.MaximumNArgs(1),
		Long: "Compact the home's history with the recovery code: what the home is now stands in the place of all edits so far.\n" +
			"A history ends at 8,192 edits. All owners must be in the network, for what one of them does apart from the others\n" +
			"at that moment has no effect; `hallway home log` then shows it. Look at `hallway home show` first: the code makes final what it says.\n" +
			"Without CODE it is asked for, or read from standard input, so that it stays out of the shell's history.",
		RunE: func(cmd *cobra.Command, args []string) error {
			code := strings.Join(args, "")
			if code == "" {
				var err error
				if code, err = a.askCode(cmd.Context()); err != nil {
					return err
				}
			}
			return a.do(cmd.Context(), http.MethodPost, "/home/checkpoint", map[string]any{"code": code}, "The history is compacted; the other devices follow as they hear of it.")
		},
	}
}

// maxCode bounds what is read as a code; with hyphens it has 34 characters.
const maxCode = 100

// askCode asks for the recovery code.
func (a *app) askCode(ctx context.Context) (string, error) {
	return a.askSecret(ctx, "Recovery code (it is not shown): ")
}

// askSecret reads a line from standard input, on a terminal without showing it.
func (a *app) askSecret(ctx context.Context, prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	if old, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
			return "", err
		}
		_, _ = fmt.Fprint(a.err, prompt)
		defer func() {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
			_, _ = fmt.Fprintln(a.err)
		}()
	}
	// Polling keeps Ctrl-C working: a read of a terminal cannot be broken off.
	var text []byte
	for !bytes.HasSuffix(text, []byte("\n")) && len(text) < maxCode {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		var one [1]byte
		if n, err := os.Stdin.Read(one[:]); n == 0 || err != nil {
			break
		}
		text = append(text, one[0])
	}
	code := strings.TrimSpace(string(text))
	if code == "" {
		return "", usage(errors.New("no recovery code was given; type it, or pipe it in"))
	}
	return code, nil
}

func (a *app) homeRenameCmd() *cobra.Command {
	var room string
	cmd := &cobra.Command{Use: "rename NAME NEW-NAME", Short: "Change what people read; the URI stays", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		return a.do(cmd.Context(), http.MethodPatch, "/home/names/"+api.Escape(args[0]), map[string]string{"name": args[1], "room": room}, "Renamed.")
	}}
	cmd.Flags().StringVar(&room, "room", "", "also move the device, or the person who is a wall panel, to this room")
	return cmd
}

func (a *app) homeRoleCmd() *cobra.Command {
	var class string
	cmd := &cobra.Command{
		Use: "role NAME owner|device", Short: "Say whether a device may change the home", Args: exactly(2),
		Long: "Say whether a device may change the home. A device can become an owner; an owner that was made a device\n" +
			"joins again with a new key to become one.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.do(cmd.Context(), http.MethodPatch, "/home/members/"+api.Escape(args[0]), map[string]string{"role": args[1], "class": class}, args[0]+" is "+args[1]+" now.")
		},
	}
	cmd.Flags().StringVar(&class, "class", "", "also change its class, such as tv or panel")
	return cmd
}

func (a *app) homeRoomCmd() *cobra.Command {
	var end bool
	cmd := &cobra.Command{Use: "room NAME", Short: "Make a room, or end one", Args: exactly(1)}
	cmd.Flags().BoolVar(&end, "delete", false, "end the room of this name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if end {
			return a.deleteName(cmd.Context(), args[0])
		}
		return a.do(cmd.Context(), http.MethodPost, "/home/rooms", map[string]string{"name": args[0]}, "Done.")
	}
	return cmd
}

func (a *app) deleteName(ctx context.Context, slug string) error {
	return a.do(ctx, http.MethodDelete, "/home/names/"+api.Escape(slug), nil, "Done. The name "+slug+" is not given again.")
}

// homeSetCmd makes, changes or ends what has members.
func (a *app) homeSetCmd(kind, path, of string) *cobra.Command {
	var slug string
	var end bool
	cmd := &cobra.Command{Use: kind + " NAME MEMBER...", Short: "Make, change or end a " + kind + " of " + of, Args: cobra.MinimumNArgs(1)}
	cmd.Flags().StringVar(&slug, "slug", "", "change the existing one of this name")
	cmd.Flags().BoolVar(&end, "delete", false, "end the "+kind+" of this name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if end {
			return a.deleteName(cmd.Context(), args[0])
		}
		if len(args) < 2 {
			return usage(fmt.Errorf("name the members too: hallway home %s NAME MEMBER", kind))
		}
		return a.do(cmd.Context(), http.MethodPost, path, map[string]any{"slug": slug, "name": args[0], "members": args[1:]}, "Done.")
	}
	return cmd
}

func (a *app) homeForeignCmd() *cobra.Command {
	var req api.ForeignRequest
	var class string
	var end bool
	cmd := &cobra.Command{Use: "foreign NAME [URI]", Short: "Give a device that cannot run Hallway a name here", Args: cobra.RangeArgs(1, 2)}
	cmd.Flags().StringVar(&req.Slug, "slug", "", "change the existing one of this name")
	cmd.Flags().StringVar(&class, "class", "", "what it is, such as camera")
	cmd.Flags().StringSliceVar(&req.Speakers, "speaker", nil, "device that speaks for it; may be given again")
	cmd.Flags().BoolVar(&end, "delete", false, "end the one of this name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if end {
			return a.deleteName(cmd.Context(), args[0])
		}
		req.Name, req.Class = args[0], devices.Class(class)
		if len(args) > 1 {
			req.URI = args[1]
		}
		if req.Speakers == nil {
			req.Speakers = []string{}
		}
		return a.do(cmd.Context(), http.MethodPost, "/home/foreign", req, "Done.")
	}
	return cmd
}

func (a *app) homeRuleCmd() *cobra.Command {
	var hours string
	var nobody, end bool
	cmd := &cobra.Command{
		Use: "rule [NAME RIGHT [WHO...]]", Short: "Show the rules, or say who has a right on something",
		Long: "Show the rules, or say who has a right on a device, room or person, or on `all`.\n\n" +
			"Rights: call (make it ring), view (see its camera), dropin (be connected unanswered), door (open its door).\n" +
			"WHO are names, or `all`. Without a rule members may call and view each other, and nobody may drop in or open doors.\n" +
			"The rule closest to the device counts: its own, its person's, its room's, then that on `all`.",
		Example: "  hallway home rule bedroom call all --hours 07:00-22:00\n  hallway home rule front-door door maria\n  hallway home rule tv view --nobody",
	}
	cmd.Flags().StringVar(&hours, "hours", "", "only then, such as 07:00-22:00")
	cmd.Flags().BoolVar(&nobody, "nobody", false, "nobody has the right")
	cmd.Flags().BoolVar(&end, "delete", false, "end the rule")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			h, err := ask[api.Home](cmd.Context(), a, http.MethodGet, "/home", nil)
			if err != nil {
				return err
			}
			return a.show(h.Rules, func() { a.showRules(h.Rules) })
		}
		if len(args) == 1 || len(args) == 2 && !nobody && !end || len(args) > 2 && (nobody || end) {
			return usage(errors.New("say who: hallway home rule NAME RIGHT WHO..., or --nobody, or --delete"))
		}
		path := "/home/rules/" + api.Escape(args[0]) + "/" + api.Escape(args[1])
		if end {
			return a.do(cmd.Context(), http.MethodDelete, path, nil, "Done.")
		}
		return a.do(cmd.Context(), http.MethodPut, path, map[string]any{"who": args[2:], "hours": hours}, "Done.")
	}
	return cmd
}
