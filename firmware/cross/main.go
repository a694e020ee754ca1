// Command cross builds the agent for every target and fails if one breaks its size
// budget; with -host only for this machine.
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
	host := flag.String("host", "", "build only this file, for this machine")
	flag.Parse()
	var err error
	if *host != "" {
		err = build(*host, *version, []string{"CGO_ENABLED=0"})
	} else {
		err = run(*out, *version)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(file, version string, env []string) error {
	cmd := exec.Command("go", firmware.BuildArgs(version, file)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func run(out, version string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var broken error
	fmt.Printf("%-14s %10s %10s\n", "TARGET", "SIZE", "BUDGET")
	for _, t := range firmware.Targets() {
		file := filepath.Join(out, "hallway-"+t.Name)
		if err := build(file, version, t.BuildEnv()); err != nil {
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
