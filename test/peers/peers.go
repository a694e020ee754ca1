// Package peers runs other programs on the hosts of a lab and reads what they print, for
// the tests between processes: avahi on a bus of its own, and the peers of test/interop.
// Every program ends with its test.
package peers

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// TB is what a test gives; testing.T and testing.B satisfy it.
type TB interface {
	netlab.TB
	Fatalf(format string, args ...any)
	TempDir() string
}

// Program is one running program on a host.
type Program struct {
	Stop  func() // ends it with SIGTERM, and waits
	stdin io.Writer
	mu    sync.Mutex
	text  strings.Builder
}

// Write collects what the program prints.
func (p *Program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// Output is all that it has printed.
func (p *Program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// Len is a point in the output, for AwaitSince.
func (p *Program) Len() int { return len(p.Output()) }

// Start runs a program on a host.
func Start(t TB, h *netlab.Host, name string, args ...string) *Program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd, p := h.Command(ctx, name, args...), &Program{}
	cmd.Stdout, cmd.Stderr = p, p
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p.stdin = in
	p.Stop = sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // ended by our signal
	})
	t.Cleanup(p.Stop)
	return p
}

// Say gives the program a line.
func (p *Program) Say(t TB, line string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// Await waits until one line holds all the words, and returns how long it took.
func (p *Program) Await(t TB, limit time.Duration, words ...string) time.Duration {
	t.Helper()
	return p.AwaitSince(t, 0, limit, words...)
}

// AwaitSince does so among what was printed after a point.
func (p *Program) AwaitSince(t TB, from int, limit time.Duration, words ...string) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		if HasLine(p.Output()[from:], words...) {
			return time.Since(began)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no line with %q within %v in:\n%s", words, limit, p.Output()[from:])
	return 0
}

// HasLine reports whether one line of a text holds all the words.
func HasLine(text string, words ...string) bool {
	for line := range strings.SplitSeq(text, "\n") {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// Build compiles one of the peers, by its folder.
func Build(t TB, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), filepath.Base(dir))
	cmd := exec.Command("go", "build", "-o", bin, dir) //nolint:noctx // ends by itself
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// avahiRun gives avahi-daemon its own /run with a system bus on it, and its own folder of
// services; then it runs the lines that it is given.
const avahiRun = `
mount -t tmpfs none /run
mkdir -p /run/dbus /run/avahi-daemon /etc/avahi
mount -t tmpfs none /etc/avahi
mkdir -p /etc/avahi/services
cat > /run/bus.conf <<X
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>
X
printf '[server]\nhost-name=avahi-host\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=eth0,eth1\n' > /run/avahi.conf
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket
dbus-daemon --config-file=/run/bus.conf --nofork < /dev/null &
for i in $(seq 100); do [ -S /run/dbus/system_bus_socket ] && break; sleep 0.05; done
avahi-daemon --no-drop-root --no-chroot --no-rlimits -f /run/avahi.conf < /dev/null &
daemon=$!
while read -r line; do eval "$line"; done
`

// Avahi starts avahi-daemon on a host and waits until it is ready. What is said to the
// program is run by its shell, in which $daemon is the process.
func Avahi(t TB, h *netlab.Host) *Program {
	t.Helper()
	for _, p := range []string{"avahi-daemon", "avahi-browse", "avahi-publish", "avahi-resolve", "dbus-daemon", "unshare"} {
		if _, err := exec.LookPath(p); err != nil {
			netlab.Missing(t, p+" is not installed (Debian: apt install avahi-daemon avahi-utils dbus util-linux)")
		}
	}
	p := Start(t, h, "unshare", "-m", "sh", "-c", avahiRun)
	p.Await(t, 15*time.Second, "Server startup complete")
	return p
}

// Publish registers a service with avahi until the shell's variable is killed.
func (p *Program) Publish(t TB, variable, name, kind, port string, text ...string) {
	t.Helper()
	p.Say(t, "avahi-publish -s '"+name+"' "+kind+" "+port+" "+strings.Join(text, " ")+" < /dev/null & "+variable+"=$!")
}
