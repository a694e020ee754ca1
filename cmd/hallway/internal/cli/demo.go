package cli

import (
	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/demo"
)

func (a *app) demoCmd() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{Use: "demo", Short: "Run a small home on this machine and check what its rooms see and hear", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&o.Dir, "dir", "build/demo", "folder for clips, recordings and logs")
	cmd.Flags().DurationVar(&o.Length, "for", demo.DefaultLength, "how long the rooms talk")
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "leave the home running and say what to try")
	cmd.Flags().BoolVar(&o.Loopback, "loopback", false, "use loopback instead of network namespaces")
	cmd.Flags().BoolVar(&o.ClipsOnly, "clips", false, "only make the clips")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.JSON, o.Out, o.Colour = a.json, a.out, a.terminal()
		return demo.Run(cmd.Context(), o)
	}
	return cmd
}
