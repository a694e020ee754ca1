package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// direct asks the agent's socket itself: no process for each question.
func (n *node) direct(ctx context.Context, method, path string, out any) (status int, err error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.dir, "hallway.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent/api/v1"+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if out != nil && res.StatusCode < 300 {
		return res.StatusCode, json.NewDecoder(res.Body).Decode(out)
	}
	return res.StatusCode, nil
}

// event is an entry of the stream, as far as tests look at it.
type event struct {
	Kind   string
	Change *struct {
		Kind   string
		Device *device
	}
	Call *call
}

// events follows the agent's stream until the test or the agent ends.
func (n *node) events() <-chan event {
	n.t.Helper()
	ctx := n.t.Context()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.dir, "hallway.sock"))
	if err != nil {
		n.t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	if _, err := fmt.Fprint(c, "GET /api/v1/events HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
		n.t.Fatal(err)
	}
	out := make(chan event, 4096)
	go func() {
		defer close(out)
		for lines := bufio.NewScanner(c); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e event
				if json.Unmarshal([]byte(data), &e) == nil {
					out <- e
				}
			}
		}
	}()
	return out
}

// socket is one of a process, as the kernel lists it.
type socket struct {
	proto string // tcp, tcp6, udp, udp6
	port  int    // local
	peer  string // hexadecimal, as in /proc/net
	state string // 01 is established
}

// sockets lists what a process has open, from the kernel.
func sockets(t testing.TB, pid int) []socket {
	t.Helper()
	mine := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			mine[strings.Trim(to, "socket:[]")] = true
		}
	}
	var out []socket
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(b), "\n")[1:] {
			f := strings.Fields(l)
			if len(f) < 10 || !mine[f[9]] {
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			n, _ := strconv.ParseInt(port, 16, 32)
			out = append(out, socket{proto, int(n), f[2], f[3]})
		}
	}
	return out
}

// mediaPorts are the UDP ports of a process that no protocol has reserved.
func mediaPorts(t testing.TB, pid int) []int {
	t.Helper()
	var out []int
	for _, s := range sockets(t, pid) {
		if strings.HasPrefix(s.proto, "udp") && !slices.Contains([]int{5353, 1900, 3702, 5060}, s.port) && !slices.Contains(out, s.port) {
			out = append(out, s.port)
		}
	}
	return out
}

// flowsTo counts the established TCP connections of a process with an address, in both
// families.
func flowsTo(t testing.TB, pid int, addrs ...string) int {
	t.Helper()
	n := 0
	for _, s := range sockets(t, pid) {
		host, _, _ := strings.Cut(s.peer, ":")
		for _, a := range addrs {
			if strings.HasPrefix(s.proto, "tcp") && s.state == "01" && strings.HasSuffix(host, kernelForm(a)) {
				n++
			}
		}
	}
	return n
}

// addresses of the host that a process runs on, link-local ones too.
func addresses(t testing.TB, pid int) []string {
	t.Helper()
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "ip", "-o", "addr", "show", "dev", "eth0").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for l := range strings.Lines(string(out)) {
		if f := strings.Fields(l); len(f) > 3 {
			addr, _, _ := strings.Cut(f[3], "/")
			all = append(all, addr)
		}
	}
	return all
}

// kernelForm writes an address as /proc/net does: 32-bit words, each in host order.
func kernelForm(addr string) string {
	ip := net.ParseIP(addr)
	b := []byte(ip.To4())
	if b == nil {
		b = ip.To16()
	}
	var s strings.Builder
	for i := 0; i < len(b); i += 4 {
		fmt.Fprintf(&s, "%02X%02X%02X%02X", b[i+3], b[i+2], b[i+1], b[i])
	}
	return s.String()
}

// held is the memory that a process has taken, in MiB: without the pages of its program,
// which come and go with what it does and stay in the page cache.
func held(t testing.TB, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "RssAnon:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1024
		}
	}
	t.Fatal("no memory figure")
	return 0
}

// program builds one of the hostile programs.
func program(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", file, "../hostile/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}
