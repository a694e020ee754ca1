// Command testreport reads `go test -json` and prints what a person wants to know: a line
// for each package, the output of tests that failed, every attempt, figure and skip, and a summary.
// It exits 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type report struct {
	output  map[string][]string // of running tests
	passed  int
	failed  []string
	skipped []string
}

func main() {
	title := strings.Join(os.Args[1:], " ")
	r := report{output: map[string][]string{}}
	began := time.Now()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		r.take(e)
	}
	fmt.Printf("\n%s: %d passed, %d skipped, %d failed in %s\n", title, r.passed, len(r.skipped), len(r.failed), time.Since(began).Round(time.Second))
	for _, s := range r.skipped {
		fmt.Println("  skipped:", s)
	}
	slices.Sort(r.failed)
	for _, f := range slices.Compact(r.failed) {
		fmt.Println("  FAILED: ", f)
	}
	if len(r.failed) > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *report) take(e event) {
	short := strings.TrimPrefix(e.Package, "github.com/hallway-home/hallway/")
	key := short
	if e.Test != "" {
		key += " " + e.Test
	}
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
		if strings.Contains(e.Output, "attempt ") || strings.Contains(e.Output, "measured: ") {
			fmt.Print(e.Output)
		}
	case "build-output":
		fmt.Print(e.Output)
	case "build-fail":
		r.failed = append(r.failed, "build of "+e.ImportPath)
	case "pass", "fail", "skip":
		r.end(e, key, short)
	}
}

func (r *report) end(e event, key, short string) {
	out := r.output[key]
	delete(r.output, key)
	switch {
	case e.Action == "fail":
		r.failed = append(r.failed, key)
		for _, l := range out {
			fmt.Print(l)
		}
	case e.Action == "skip" && e.Test != "":
		why := ""
		for _, l := range out {
			if i := strings.Index(l, ".go:"); i >= 0 {
				why = strings.TrimSpace(l[i:])
			}
		}
		r.skipped = append(r.skipped, key+" "+why)
	case e.Action == "pass" && e.Test != "":
		r.passed++
	case e.Action == "pass":
		fmt.Printf("ok    %-40s %6.1f s\n", short, e.Elapsed)
	}
}
