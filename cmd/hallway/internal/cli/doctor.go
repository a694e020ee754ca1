package cli

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/doctor"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [[FROM] NAME]", Short: "Find out what is wrong, and what to do",
		Long: "Without a name: what is wrong on this device and with the way to every other.\n" +
			"With one: why this device cannot call NAME, leg by leg. With two: why the device FROM cannot.\n" +
			"Nobody is rung, and neither camera nor microphone opens.",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(2)(cmd, args); err != nil {
				return usage(fmt.Errorf("%w; usage: %s", err, cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return a.examineHere(cmd)
			case 1:
				return a.examineCall(cmd, "", args[0])
			}
			return a.examineCall(cmd, args[0], args[1])
		},
	}
}

// examineHere checks this device and asks the agent about the others.
func (a *app) examineHere(cmd *cobra.Command) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	peers, perr := ask[[]api.Check](cmd.Context(), a, http.MethodGet, "/doctor", nil)
	checks := doctor.Local(cmd.Context(), c, perr == nil)
	if perr != nil {
		checks = append(checks, api.Check{Name: "agent", Level: "fail", Words: perr.Error()})
	}
	checks = append(checks, peers...)
	if err := a.show(checks, func() { a.checksTable("WHAT", checks) }); err != nil {
		return err
	}
	for _, k := range checks {
		if k.Level == "fail" {
			return exitError{ExitError, fmt.Errorf("%s: %s", k.Name, k.Words)}
		}
	}
	return nil
}

// examineCall says whether one device can call a name. The exit code is the one that a
// call would end with.
func (a *app) examineCall(cmd *cobra.Command, from, to string) error {
	d, err := ask[api.Diagnosis](cmd.Context(), a, http.MethodGet, "/doctor/call?"+url.Values{"from": {from}, "to": {to}}.Encode(), nil)
	if err != nil {
		return err
	}
	if err := a.show(d, func() {
		a.checksTable("LEG", d.Legs)
		if d.OK {
			a.say("\n%s", d.Words)
		}
	}); err != nil || d.OK {
		return err
	}
	words := d.Words
	if d.Advice != "" {
		words += " What to do: " + d.Advice + "."
	}
	return exitError{exitOfLeg(d.Cause), fmt.Errorf("%s", words)}
}

func (a *app) checksTable(what string, checks []api.Check) {
	var rows [][]string
	devices := false
	for _, k := range checks {
		words := k.Words
		if k.Advice != "" {
			words += "; " + k.Advice
		}
		level := k.Level
		switch level {
		case "fail":
			level = "fails"
		case "skip":
			level = "not tried"
		}
		devices = devices || k.Device != ""
		rows = append(rows, []string{level, k.Name, k.Device, words})
	}
	head := []string{"", what, "DEVICE", "FOUND"}
	if !devices {
		head = append(head[:2], head[3])
		for i, r := range rows {
			rows[i] = append(r[:2], r[3])
		}
	}
	a.table(head, rows)
}

// exitOfLeg is the exit code of a leg that fails; docs/cli.md lists them.
func exitOfLeg(leg string) int {
	switch leg {
	case doctor.LegName:
		return ExitNotFound
	case doctor.LegPolicy:
		return ExitForbidden
	case doctor.LegBusy:
		return ExitNoAnswer
	case doctor.LegMember, doctor.LegAddress, doctor.LegPort, doctor.LegTLS, doctor.LegSIP, doctor.LegMedia, doctor.LegCamera:
		return ExitUnreachable
	case doctor.LegCodec:
		return ExitNoCodec
	}
	return ExitError
}
