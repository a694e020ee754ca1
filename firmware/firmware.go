// Package firmware owns what we ship to which machine: the targets, how they are built
// and how large they may be. It is pure: the program in firmware/cross builds, the one in
// firmware/pack (a module of its own) makes packages. Signed images and updates come later.
package firmware

import "fmt"

// Target is one kind of machine that has a binary.
type Target struct {
	Name   string // "linux-arm-6"
	GOOS   string
	GOARCH string
	Env    []string // GOARM, GOMIPS
	Budget int64    // bytes, stripped
}

// MiB is 2 to the 20th.
const MiB = 1 << 20

// Targets of a release. Budgets keep the agent on devices with little flash: routers with
// 32 MiB hold it beside their system (docs/decisions.md says why not less).
func Targets() []Target {
	return []Target{
		{Name: "linux-amd64", GOOS: "linux", GOARCH: "amd64", Budget: 22 * MiB},
		{Name: "linux-arm64", GOOS: "linux", GOARCH: "arm64", Budget: 22 * MiB},
		{Name: "linux-arm-6", GOOS: "linux", GOARCH: "arm", Env: []string{"GOARM=6"}, Budget: 22 * MiB},
		{Name: "linux-arm-7", GOOS: "linux", GOARCH: "arm", Env: []string{"GOARM=7"}, Budget: 22 * MiB},
		{Name: "linux-riscv64", GOOS: "linux", GOARCH: "riscv64", Budget: 22 * MiB},
		{Name: "linux-mipsle", GOOS: "linux", GOARCH: "mipsle", Env: []string{"GOMIPS=softfloat"}, Budget: 25 * MiB},
	}
}

// tags of what ships: HTTP/2 stays out of net/http (0.5 MiB), because the API speaks
// over a local socket and web sockets need HTTP/1.1 anyway.
const tags = "nethttpomithttp2"

// notInlined are packages that no packet of a call passes through: copying their small
// functions to where they are called would cost 0.4 MiB.
func notInlined() []string {
	return []string{
		"github.com/danielgtaylor/...", "github.com/goccy/...", "github.com/spf13/...", "github.com/miekg/...",
		"github.com/hallway-home/hallway/cmd/...", "github.com/hallway-home/hallway/devices/trust",
	}
}

// Package is what is built.
const Package = "github.com/hallway-home/hallway/cmd/hallway"

// Stamp is what a binary says of itself in `hallway version`.
type Stamp struct {
	Version string
	Commit  string // of the source; empty if unknown
}

// BuildArgs are the arguments of `go build` for what ships, without a commit.
func BuildArgs(version, out string) []string { return Stamp{Version: version}.BuildArgs(out) }

// BuildArgs are the arguments of `go build` for what ships: no C, no paths, no symbols.
// The commit comes by the linker and not by -buildvcs, so that an unpacked archive of the
// source and a clone with other files beside it give the same bytes.
func (s Stamp) BuildArgs(out string) []string {
	args := []string{"build", "-tags", tags, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=" + s.Version + " -X main.commit=" + s.Commit, "-o", out}
	for _, p := range notInlined() {
		args = append(args, "-gcflags="+p+"=-l")
	}
	return append(args, Package)
}

// BuildEnv is what a target adds to the environment of `go build`.
func (t Target) BuildEnv() []string {
	return append([]string{"CGO_ENABLED=0", "GOOS=" + t.GOOS, "GOARCH=" + t.GOARCH}, t.Env...)
}

// File is the name of the target's binary among the others.
func (t Target) File() string { return "hallway-" + t.Name }

// Check says whether a binary keeps its budget.
func (t Target) Check(size int64) error {
	if size > t.Budget {
		return fmt.Errorf("%s has %.2f MiB, its budget is %.0f MiB; look at what was added with `go tool nm -size -sort size`", t.Name, float64(size)/MiB, float64(t.Budget)/MiB)
	}
	return nil
}
