// Command bench measures the budgets of the project between real processes in network
// namespaces, prints a table and writes build/bench.json. It needs root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/test/netlab"
)

// row is one measured budget; Peer is another program's figure in the same run, if any.
type row struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Budget float64 `json:"budget"`
	Peer   string  `json:"peer,omitempty"`
	OK     bool    `json:"ok"`
}

func main() {
	binary := flag.String("hallway", "build/hallway", "program to measure")
	out := flag.String("out", "build/bench.json", "file for the figures")
	testing.Init() // meshes runs its bubble as a test
	flag.Parse()
	if err := run(*binary, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(binary, out string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	rows := []row{
		{Name: "binary amd64, stripped", Value: float64(info.Size()) / (1 << 20), Unit: "MiB", Budget: 18},
		{Name: "look-up of an AOR", Value: lookUp(), Unit: "us", Budget: 1},
	}
	more, err := home(binary)
	if err != nil {
		return err
	}
	rows = append(rows, more...)
	if more, err = meshes(); err != nil {
		return err
	}
	rows = append(rows, more...)
	fmt.Printf("%-46s %10s %-4s %10s\n", "WHAT", "MEASURED", "", "BUDGET")
	for i := range rows {
		rows[i].OK = rows[i].Value <= rows[i].Budget
		fmt.Printf("%-46s %10.3f %-4s %10.3f\n", rows[i].Name, rows[i].Value, rows[i].Unit, rows[i].Budget)
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
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

// agent is one process.
type agent struct {
	dir  string
	host *netlab.Host
	args []string
	cmd  *exec.Cmd
	http http.Client
}

func newAgent(l *netlab.Lab, root, name, class string) (*agent, error) {
	h, err := l.Host(name)
	if err != nil {
		return nil, err
	}
	a := &agent{dir: filepath.Join(root, name), host: h}
	a.args = []string{"up", "--data", a.dir, "--name", name, "--class", class, "--auto-answer", "yes", "--log-level", "error"}
	a.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(a.dir, "hallway.sock"))
	}}
	return a, nil
}

func (a *agent) start(binary string, more ...string) error {
	a.cmd = a.host.Command(context.Background(), binary, append(slices.Clone(a.args), more...)...)
	a.cmd.Stderr = os.Stderr
	if err := a.cmd.Start(); err != nil {
		return err
	}
	return until(10*time.Second, "an agent starts", func() bool { return a.do("GET", "/status", "", nil) == nil })
}

func (a *agent) stop() {
	if a.cmd != nil && a.cmd.Process != nil {
		_ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGTERM)
		_ = a.cmd.Wait()
	}
}

func (a *agent) do(method, path, body string, out any) error {
	req, err := http.NewRequest(method, "http://agent/api/v1"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

func (a *agent) sees(slug string) bool {
	var v struct {
		Devices []struct{ Slug, Status string }
	}
	if a.do("GET", "/devices", "", &v) != nil {
		return false
	}
	for _, d := range v.Devices {
		if d.Slug == slug && d.Status == "reachable" {
			return true
		}
	}
	return false
}

func until(within time.Duration, what string, cond func() bool) error {
	for end := time.Now().Add(within); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", within, what)
		}
	}
	return nil
}

// home measures what needs processes.
func home(binary string) (rows []row, err error) {
	lab, err := netlab.New()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "hallway-bench")
	if err != nil {
		return nil, err
	}
	var agents []*agent
	defer func() {
		for _, a := range agents {
			a.stop()
		}
		err = errors.Join(err, lab.Close(), os.RemoveAll(root))
	}()
	for _, x := range [][2]string{{"tv", "tv"}, {"panel", "panel"}, {"camera", "camera"}} {
		a, err := newAgent(lab, root, x[0], x[1])
		if err != nil {
			return nil, err
		}
		agents = append(agents, a)
	}
	tv := agents[0]
	if err := tv.start(binary); err != nil {
		return nil, err
	}
	if err := tv.do("POST", "/home", `{"name":"Bench"}`, nil); err != nil {
		return nil, err
	}
	for i, a := range agents[1:] {
		var inv struct{ Token string }
		if err := tv.do("POST", "/invite", `{}`, &inv); err != nil {
			return nil, err
		}
		if err := errors.Join(a.start(binary, "--join", inv.Token), until(15*time.Second, "a device joins", func() bool { return tv.sees([]string{"panel", "camera"}[i]) })); err != nil {
			return nil, err
		}
	}
	measures := []func(string, []*agent) (row, error){invites, appears, idle}
	for _, m := range measures {
		r, err := m(binary, agents)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	rss, err := memory(tv.cmd.Process.Pid)
	return append(rows, row{Name: "idle memory (RSS)", Value: rss, Unit: "MiB", Budget: 24}), err
}

// invites is the median time from a call's start to its 200, with auto-answer: looking up,
// gathering and offering included.
func invites(_ string, agents []*agent) (row, error) {
	var all []float64
	for range 25 {
		var c struct {
			ID, State         string
			Started, Answered time.Time
		}
		if err := agents[0].do("POST", "/calls", `{"to":"panel","video":true}`, &c); err != nil {
			return row{}, err
		}
		id := c.ID
		if err := until(5*time.Second, "a call is answered", func() bool {
			return agents[0].do("GET", "/calls/"+id, "", &c) == nil && c.State == "active"
		}); err != nil {
			return row{}, err
		}
		all = append(all, float64(c.Answered.Sub(c.Started).Microseconds())/1000)
		if err := agents[0].do("DELETE", "/calls/"+id, "", nil); err != nil {
			return row{}, err
		}
		time.Sleep(120 * time.Millisecond) // the bound on calls a second is not what is measured
	}
	slices.Sort(all)
	return row{Name: "INVITE to 200, with look-up and offer, median", Value: all[len(all)/2], Unit: "ms", Budget: 15}, nil
}

// appears is how long after its start a device is reachable in every other directory.
func appears(binary string, agents []*agent) (row, error) {
	var all []float64
	cam := agents[2]
	for range 5 {
		cam.stop()
		if err := until(5*time.Second, "the camera is gone", func() bool { return !agents[0].sees("camera") && !agents[1].sees("camera") }); err != nil {
			return row{}, err
		}
		began := time.Now()
		if err := cam.start(binary); err != nil {
			return row{}, err
		}
		if err := until(10*time.Second, "the camera is back", func() bool { return agents[0].sees("camera") && agents[1].sees("camera") }); err != nil {
			return row{}, err
		}
		all = append(all, float64(time.Since(began).Microseconds())/1000)
	}
	slices.Sort(all)
	return row{Name: "start to every other directory, median", Value: all[len(all)/2], Unit: "ms", Budget: 500}, nil
}

// idle is the share of a core that an agent in a home of three uses for 10 s.
func idle(_ string, agents []*agent) (row, error) {
	pid := agents[0].cmd.Process.Pid
	before, err := cpuTicks(pid)
	if err != nil {
		return row{}, err
	}
	time.Sleep(10 * time.Second)
	after, err := cpuTicks(pid)
	return row{Name: "idle, share of a core", Value: float64(after-before) / 100 / 10 * 100, Unit: "%", Budget: 0.5}, err
}

// cpuTicks reads user and system time, in hundredths of a second.
func cpuTicks(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return user + system, errors.Join(err1, err2)
}

func memory(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no memory figure")
}
