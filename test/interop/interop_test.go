// Package interop shows that other people's mDNS software and ours see each other, each
// on a host of its own in a network namespace.
package interop

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// output collects what a running program prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until one line holds all the words, and returns how long it took.
func (o *output) await(t *testing.T, limit time.Duration, words ...string) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		for line := range strings.SplitSeq(o.String(), "\n") {
			if all(line, words) {
				return time.Since(began)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no line with %q within %v in:\n%s", words, limit, o.String())
	return 0
}

func all(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// build compiles one of the peers.
func build(t *testing.T, peer string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), peer)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./"+peer)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// start runs a program on a host; the function returned ends it with SIGTERM and waits.
func start(t *testing.T, h *netlab.Host, name string, args ...string) (*output, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd, o := h.Command(ctx, name, args...), &output{}
	cmd.Stdout, cmd.Stderr = o, o
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // ended by our signal
	})
	t.Cleanup(stop)
	return o, stop
}

func TestZeroconfAndWeSeeEachOther(t *testing.T) {
	lab := netlab.For(t)
	ours, theirs := build(t, "enginepeer"), build(t, "zeroconfpeer")
	we, _ := start(t, lab.MustHost(t, "we"), ours)
	they, stop := start(t, lab.MustHost(t, "they"), theirs)
	d := we.await(t, 5*time.Second, `"Porch camera"`, `"_rtsp._tcp"`, ":8554", "path=/live", `"Gone":false`)
	t.Logf("we saw zeroconf's service after %v", d)
	they.await(t, 5*time.Second, "Hallway-1a2b3c4d", "5061", "txtvers=1 id=1a2b3c4d00000000", "class=tv")
	stop()
	t.Logf("its goodbye removed it after %v", we.await(t, 3*time.Second, `"Porch camera"`, `"Gone":true`))
}

// avahiRun gives a command its own /run with a system bus and avahi-daemon on it.
const avahiRun = `set -e
mount -t tmpfs none /run
mkdir -p /run/dbus /run/avahi-daemon
cat > /run/bus.conf <<X
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>
X
printf '[server]\nhost-name=avahi-host\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=eth0\n' > /run/avahi.conf
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket
dbus-daemon --config-file=/run/bus.conf --nofork & 
for i in $(seq 100); do [ -S /run/dbus/system_bus_socket ] && break; sleep 0.05; done
avahi-daemon --no-drop-root --no-chroot --no-rlimits -f /run/avahi.conf &
for i in $(seq 100); do [ -S /run/avahi-daemon/socket ] && break; sleep 0.05; done
sleep 1
echo avahi is ready
`

func needAvahi(t *testing.T) {
	t.Helper()
	for _, p := range []string{"avahi-daemon", "avahi-browse", "avahi-publish", "dbus-daemon", "unshare"} {
		if _, err := exec.LookPath(p); err != nil {
			netlab.Missing(t, p+" is not installed (Debian: apt install avahi-daemon avahi-utils dbus util-linux)")
		}
	}
}

func TestAvahiAndWeSeeEachOther(t *testing.T) {
	needAvahi(t)
	lab := netlab.For(t)
	ours := build(t, "enginepeer")
	avahi, stopAvahi := start(t, lab.MustHost(t, "avahi"), "unshare", "-m", "sh", "-c", avahiRun+
		`avahi-publish -s "Hall camera" _rtsp._tcp 554 path=/h264 &
while :; do avahi-browse -rpt _hallway._tcp; sleep 0.1; done`)
	avahi.await(t, 15*time.Second, "avahi is ready")
	we, stopWe := start(t, lab.MustHost(t, "we"), ours)
	d := avahi.await(t, 2*time.Second, "=;eth0;IPv4;Hallway-1a2b3c4d;_hallway._tcp;local;hw-1a2b3c4d.local;", ";5061;",
		`"txtvers=1"`, `"id=1a2b3c4d00000000"`, `"class=tv"`, `"pair=0"`)
	t.Logf("avahi-browse showed us %v after our start", d)
	we.await(t, 5*time.Second, `"Hall camera"`, `"_rtsp._tcp"`, ":554", "path=/h264", `"Gone":false`)
	stopAvahi()
	t.Logf("avahi's goodbye removed it after %v", we.await(t, 4*time.Second, `"Hall camera"`, `"Gone":true`))
	stopWe()
}

func TestLoopbackWorksWhenAskedFor(t *testing.T) {
	lab := netlab.For(t)
	ours, h := build(t, "enginepeer"), lab.MustHost(t, "one")
	a, _ := start(t, h, ours, "aa", "lo")
	b, stop := start(t, h, ours, "bb", "lo")
	a.await(t, 5*time.Second, "Hallway-bb2b3c4d", "127.0.0.1:5061", `"Gone":false`)
	b.await(t, 5*time.Second, "Hallway-aa2b3c4d", "127.0.0.1:5061", `"Gone":false`)
	stop()
	a.await(t, 3*time.Second, "Hallway-bb2b3c4d", `"Gone":true`)
}

func TestIPv6Only(t *testing.T) {
	lab := netlab.For(t)
	ours := build(t, "enginepeer")
	one, two := lab.MustHost(t, "one"), lab.MustHost(t, "two")
	for _, h := range []*netlab.Host{one, two} {
		if out, err := h.Command(t.Context(), "ip", "-4", "addr", "flush", "dev", "eth0").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	a, _ := start(t, one, ours, "aa")
	start(t, two, ours, "bb")
	a.await(t, 5*time.Second, "Hallway-bb2b3c4d", "[fe80::", "%eth0]:5061", "["+two.IPv6+"]:5061")
}
