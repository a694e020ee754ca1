package cli

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

func (a *app) adoptCmd() *cobra.Command {
	var req api.AdoptRequest
	var class string
	cmd := &cobra.Command{
		Use: "adopt RTSP-ADDRESS", Short: "Give an RTSP camera a name here, so that every device can call it", Args: exactly(1),
		Long: "Give an RTSP camera a name here, so that every device can call it: hallway adopt rtsp://user@192.0.2.9/stream --name \"Front door\" --room Hall\n\n" +
			"The camera is tried first. This device then speaks for it, or the one named with --via. The password is kept there alone; the home\n" +
			"knows the address without it. Where the address has a user name but no password, the password is asked for, or read from standard\n" +
			"input, so that it stays out of the shell's history. Adopting the same address again changes its password, name or room.",
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "what to call it")
	cmd.Flags().StringVar(&req.Room, "room", "", "the room it looks at")
	cmd.Flags().StringVar(&req.Via, "via", "", "the device that speaks for it (default: this one)")
	cmd.Flags().StringVar(&class, "class", "", "what it is (default: camera)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.URI, req.Class = args[0], devices.Class(class)
		if u, err := url.Parse(req.URI); err == nil && u.User != nil {
			if _, given := u.User.Password(); !given {
				password, err := a.askSecret(cmd.Context(), "Password of the camera (it is not shown): ")
				if err != nil {
					return err
				}
				u.User = url.UserPassword(u.User.Username(), password)
				req.URI = u.String()
			}
		}
		got, err := ask[api.Adoption](cmd.Context(), a, http.MethodPost, "/home/cameras", req)
		if err != nil {
			return err
		}
		return a.show(got, func() {
			a.say("Adopted %s as %s%s; %s speaks for it. It sends %s.", got.Name, got.Slug, inRoom(got.Room), got.Speaker, strings.Join(got.Codecs, " and "))
			if got.Left != "" {
				a.say("Left out, since no other device could take it as it is: %s.", got.Left)
			}
			if got.Certificate != "" {
				a.say("Its certificate is %s; another one will be refused until you adopt it again.", got.Certificate)
			}
			a.say("See it from anywhere: `hallway call %s`.", got.Slug)
		})
	}
	return cmd
}
