// Command hallway is the agent that runs on each device of a home, and the command line
// that speaks to it.
package main

import (
	"os"

	"github.com/hallway-home/hallway/cmd/hallway/internal/cli"
)

// version and commit are set by the build (-ldflags -X).
var version, commit = "dev", ""

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Build{Version: version, Commit: commit}, os.Stdout, os.Stderr))
}
