// Command bench measures the budgets of the project between real processes in network
// namespaces, prints a table and writes build/bench.json. It needs root.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// row is one measured budget; Peer is another program's figure, and where it is from.
type row struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Worst  float64 `json:"worst,omitempty"` // of all rounds, where Value is their median
	Unit   string  `json:"unit"`
	Budget float64 `json:"budget"`
	Peer   string  `json:"peer,omitempty"`
	OK     bool    `json:"ok"`
}

func main() {
	binary := flag.String("hallway", "build/hallway", "program to measure")
	out := flag.String("out", "build/bench.json", "file for the figures")
	only := flag.String("only", "", "one part: small, home, crashes, crowd, mesh, fanout, agents or companion")
	flag.Parse()
	if err := run(*binary, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// part is a set of rows that are measured together.
type part struct {
	name    string
	measure func(binary string) ([]row, error)
}

func parts() []part {
	return []part{{"small", small}, {"home", home}, {"crashes", crashes}, {"crowd", crowds}, {"mesh", meshes}, {"fanout", fans}, {"agents", wholes}, {"companion", companions}}
}

func run(binary, out, only string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	var rows []row
	var failed []error // one part that fails takes no other's figures away
	for _, p := range parts() {
		if only != "" && only != p.name {
			continue
		}
		more, err := p.measure(binary)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		rows = append(rows, more...)
	}
	fmt.Printf("%-66s %10s %8s %-5s %10s  %-5s %s\n", "WHAT", "MEASURED", "WORST", "", "BUDGET", "", "PEER")
	for i := range rows {
		r := &rows[i]
		verdict := "over"
		if r.OK = r.Value <= r.Budget; r.OK {
			verdict = "ok"
		}
		worst := ""
		if r.Worst > 0 {
			worst = fmt.Sprintf("%.0f", r.Worst)
		}
		fmt.Printf("%-66s %10.3f %8s %-5s %10.3f  %-5s %s\n", r.Name, r.Value, worst, r.Unit, r.Budget, verdict, r.Peer)
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(append(failed, os.WriteFile(out, append(b, '\n'), 0o644))...)
}

// small is what needs no agents.
func small(binary string) ([]row, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return nil, err
	}
	return []row{
		{Name: "binary amd64, stripped", Value: float64(info.Size()) / (1 << 20), Unit: "MiB", Budget: 22},
		{Name: "look-up of an AOR", Value: lookUp(), Unit: "us", Budget: 1},
	}, nil
}

// lookUp is the time of one look-up among 64 devices, in microseconds.
func lookUp() float64 {
	in := devices.Inputs{Roster: &devices.Roster{Members: map[devices.NodeID]devices.Member{}, Rooms: map[string]devices.Room{"kitchen": {Slug: "kitchen"}}}}
	for i := range 64 {
		id := devices.NodeID{byte(i)}
		in.Roster.Members[id] = devices.Member{Node: id, Slug: fmt.Sprintf("d%d", i), Room: "kitchen"}
	}
	s := devices.Fold(in)
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, ok := s.Resolve("kitchen"); !ok {
				b.Fatal("lost")
			}
		}
	})
	return float64(r.T.Nanoseconds()) / float64(r.N) / 1000
}
