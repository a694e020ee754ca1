package main

import (
	"context"
	"encoding/json"
	"errors"
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
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

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
