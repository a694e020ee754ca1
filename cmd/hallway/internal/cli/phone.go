package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

func (a *app) phoneCmd() *cobra.Command {
	var req api.PhoneRequest
	var role, until string
	var noWait, yes bool
	cmd := &cobra.Command{
		Use: "phone", Short: "Show a code by which a phone or browser joins as a person", Args: cobra.NoArgs,
		Long: "Show a code by which a phone or browser joins as a person; on an owner's device. The first person owns the home.\n\n" +
			"Let the phone trust the home first (`hallway home trust` says how), then scan. A phone that did not has to believe this\n" +
			"Wi-Fi once. So it is asked here whether the phone that came is the right one; --trusted says that nobody needs to be asked.",
	}
	fl := cmd.Flags()
	fl.StringVar(&req.Name, "name", "", "the person's name")
	fl.StringVar(&req.Person, "person", "", "a person of the home who gets another phone")
	fl.StringVar(&role, "role", "", "owner, member or guest (default: owner for the first person, else member)")
	fl.StringVar(&until, "until", "", "a guest's last day, such as 2026-12-31")
	fl.StringVar(&req.Room, "room", "", "for a wall panel: the room where it is; a call to the room rings there")
	fl.IntVar(&req.Minutes, "minutes", 0, "how long the code works (default 3, at most 15)")
	fl.BoolVar(&req.Trusted, "trusted", false, "the phone trusts the home's certificate already, and the words were compared")
	fl.BoolVar(&noWait, "no-wait", false, "show the code and return")
	fl.BoolVar(&yes, "yes", false, "let in whatever phone shows the code, without asking")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req.Role = devices.Role(role)
		if until != "" {
			day, err := time.ParseInLocation(time.DateOnly, until, time.Local)
			if err != nil {
				return usage(fmt.Errorf("--until: a day is written like 2026-12-31"))
			}
			req.Until = day.AddDate(0, 0, 1) // the last day counts
		}
		w, err := ask[api.PhoneWindow](cmd.Context(), a, http.MethodPost, "/phones/window", req)
		if err != nil {
			return err
		}
		if err := a.show(w, func() { a.showPhones(w) }); err != nil || noWait {
			return err
		}
		return a.followPhones(cmd.Context(), w, yes)
	}
	cmd.AddCommand(a.phoneShowCmd(), a.phoneConfirmCmd("accept", true, "Let the phone in that waits"), a.phoneConfirmCmd("decline", false, "Refuse the phone that waits"))
	return cmd
}

func (a *app) phoneShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the window for a phone", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		w, err := ask[api.PhoneWindow](cmd.Context(), a, http.MethodGet, "/phones/window", nil)
		if err != nil {
			return err
		}
		return a.show(w, func() {
			switch w.State {
			case "open":
				a.showPhones(w)
			case "waiting":
				a.say("%q wants to come in as %s. It shows the words  %s", w.Phone, w.Person, w.Words)
			default:
				a.say("No window for a phone is open (%s).", w.State)
			}
		})
	}}
}

func (a *app) phoneConfirmCmd(use string, yes bool, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		said := "The phone was refused."
		if yes {
			said = "The phone may come in."
		}
		return a.do(cmd.Context(), http.MethodPost, "/phones/window/confirm", map[string]bool{"accept": yes}, said)
	}}
}

func (a *app) showPhones(w api.PhoneWindow) {
	if a.terminal() {
		a.drawQR(w.URL)
	}
	a.say("Open      %s", w.URL)
	a.say("or type   %s", w.Code)
	a.say("Becomes   %s (%s)", w.Person, w.Role)
	a.say("Until     %s", w.Until.Local().Format("15:04:05"))
}

// followPhones waits for the phone, and asks the person here about it.
func (a *app) followPhones(ctx context.Context, w api.PhoneWindow, yes bool) error {
	state := w.State
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		w, err := ask[api.PhoneWindow](ctx, a, http.MethodGet, "/phones/window", nil)
		if err != nil {
			return err
		}
		if w.State == state {
			continue
		}
		state = w.State
		switch state {
		case "waiting":
			if err := a.show(w, func() { a.say("\n%q wants to come in as %s. It shows the words  %s", w.Phone, w.Person, w.Words) }); err != nil {
				return err
			}
			accept := yes
			if !yes {
				if accept, err = a.askYes(); err != nil {
					return err
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.Do(ctx, http.MethodPost, "/phones/window/confirm", map[string]bool{"accept": accept}, nil); err != nil {
				return err
			}
		case "paired":
			return a.show(w, func() { a.say("%s belongs to %s now, as %s.", w.Phone, w.Person, w.Slug) })
		case "refused":
			return exitError{ExitForbidden, errors.New("the phone was refused; nothing was changed")}
		case "closed":
			return exitError{ExitForbidden, errors.New("the window closed; nothing was changed")}
		}
	}
}

// askYes asks at the terminal; everything but yes is no.
func (a *app) askYes() (bool, error) {
	_, _ = fmt.Fprint(a.err, "Is it the phone in your hand, with the same words? [y/N] ")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && line == "" {
		return false, errors.New("nobody answers here; confirm it with `hallway phone accept`, or use --trusted")
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}

func (a *app) homeTrustCmd() *cobra.Command {
	var renew bool
	cmd := &cobra.Command{Use: "trust", Short: "Show by what a phone or browser knows this home", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&renew, "renew", false, "make a new certificate authority, when a device that held the old one is lost; every phone must trust it anew")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		method := http.MethodGet
		if renew {
			method = http.MethodPost
		}
		t, err := ask[api.Trust](cmd.Context(), a, method, "/home/trust", nil)
		if err != nil {
			return err
		}
		return a.show(t, func() {
			switch {
			case t.Own:
				a.say("This device shows the certificate of its own files at %s", t.URL)
			case !t.Ready:
				a.say("This device has no certificate yet; it asks an owner's device for one.")
			default:
				a.say("On the phone open  %strust  and compare these words before you install anything:\n\n    %s\n\nSHA-256  %s", t.URL, t.Words, t.Fingerprint)
			}
		})
	}
	return cmd
}
