// Command cross builds the agent for every target and fails if one breaks its size budget.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hallway-home/hallway/firmware"
)

func main() {
	out := flag.String("out", "build/firmware", "folder for the binaries")
	version := flag.String("version", "dev", "version they say")
	flag.Parse()
	if err := run(*out, *version); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out, version string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var broken error
	fmt.Printf("%-14s %10s %10s\n", "TARGET", "SIZE", "BUDGET")
	for _, t := range firmware.Targets() {
		file := filepath.Join(out, "hallway-"+t.Name)
		cmd := exec.Command("go", firmware.BuildArgs(version, file)...)
		cmd.Env = append(os.Environ(), t.BuildEnv()...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s does not build: %w", t.Name, err)
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		fmt.Printf("%-14s %6.2f MiB %6.0f MiB\n", t.Name, float64(info.Size())/firmware.MiB, float64(t.Budget)/firmware.MiB)
		if err := t.Check(info.Size()); err != nil {
			broken = err
		}
	}
	return broken
}
