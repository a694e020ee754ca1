package cli

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Build is what the build stamped on the program.
type Build struct {
	Version string
	Commit  string // of the source; empty if unknown
}

// about is what `hallway version --json` prints.
type about struct {
	Version string            `json:"version"`
	Commit  string            `json:"commit"`
	Go      string            `json:"go"`
	Target  string            `json:"target"` // linux/arm/7
	Modules int               `json:"modules"`
	Flags   map[string]string `json:"flags"` // of `go build`, as the compiler wrote them down
}

func (b Build) about() about {
	v := about{Version: b.Version, Commit: b.Commit, Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH, Flags: map[string]string{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Modules = len(info.Deps)
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && v.Commit == "":
			v.Commit = s.Value
		case s.Key == "GOARM", s.Key == "GOMIPS", s.Key == "GOAMD64", s.Key == "GOARM64", s.Key == "GORISCV64":
			v.Target += "/" + s.Value
		case strings.HasPrefix(s.Key, "-"), s.Key == "CGO_ENABLED":
			v.Flags[s.Key] = s.Value
		}
	}
	return v
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which version this is", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		v := a.build.about()
		return a.show(v, func() { a.say("hallway %s (%s %s)", v.Version, v.Go, v.Target) })
	}}
}
