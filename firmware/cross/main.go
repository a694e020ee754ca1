// Command cross builds the agent for every target, writes SHA256SUMS beside the binaries
// and fails if one breaks its size budget; with -host only for this machine. The same
// source, version, commit and Go give the same bytes, in whatever folder they are built.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/firmware"
)

func main() {
	out := flag.String("out", "build/firmware", "folder for the binaries")
	version := flag.String("version", "dev", "version they say")
	commit := flag.String("commit", "", "commit they say they are of")
	only := flag.String("only", "", "build only these targets, with commas between")
	host := flag.String("host", "", "build only this file, for this machine")
	flag.Parse()
	stamp := firmware.Stamp{Version: *version, Commit: *commit}
	var err error
	if *host != "" {
		err = build(*host, stamp, []string{"CGO_ENABLED=0"})
	} else {
		err = run(*out, stamp, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(file string, stamp firmware.Stamp, env []string) error {
	cmd := exec.Command("go", stamp.BuildArgs(file)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func run(out string, stamp firmware.Stamp, only string) error {
	targets, err := choose(only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var broken []error
	var sums strings.Builder
	fmt.Printf("%-14s %10s %10s\n", "TARGET", "SIZE", "BUDGET")
	for _, t := range targets {
		file := filepath.Join(out, t.File())
		if err := build(file, stamp, t.BuildEnv()); err != nil {
			return fmt.Errorf("%s does not build: %w", t.Name, err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), t.File())
		fmt.Printf("%-14s %6.2f MiB %6.0f MiB\n", t.Name, float64(len(b))/firmware.MiB, float64(t.Budget)/firmware.MiB)
		broken = append(broken, t.Check(int64(len(b))))
	}
	broken = append(broken, os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(sums.String()), 0o644))
	return errors.Join(broken...)
}

// choose picks targets by name; no names mean all.
func choose(only string) ([]firmware.Target, error) {
	all := firmware.Targets()
	if only == "" {
		return all, nil
	}
	var out []firmware.Target
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(t firmware.Target) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no target %q; firmware.Targets lists them", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}
