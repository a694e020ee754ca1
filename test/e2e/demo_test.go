package e2e

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	drive "github.com/hallway-home/hallway/test/browser"
	"github.com/hallway-home/hallway/test/netlab"
)

// demoRun is `hallway demo --keep`, as a person runs it on this machine.
type demoRun struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	done chan error

	mu  sync.Mutex
	out strings.Builder
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	d := &demoRun{t: t, dir: filepath.Join(t.TempDir(), "demo"), done: make(chan error, 1)}
	d.cmd = onMachine(context.Background(), binary, append([]string{"demo", "--keep", "--for", "5s", "--dir", d.dir}, args...)...)
	out, err := d.cmd.StdoutPipe()
	must(t, err)
	d.cmd.Stderr = d.cmd.Stdout
	must(t, d.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.mu.Lock()
			d.out.WriteString(lines.Text() + "\n")
			d.mu.Unlock()
		}
		d.done <- d.cmd.Wait()
	}()
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = syscall.Kill(d.cmd.Process.Pid, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Log("--- demo\n" + d.said())
		}
	})
	return d
}

// onMachine prepares a program in the machine's own network; it ends with ctx, and with us.
func onMachine(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (d *demoRun) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// find waits until the demo has printed what fits, and gives its first group.
func (d *demoRun) find(limit time.Duration, pattern string) string {
	d.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(d.said()); m != nil {
			return m[1]
		}
		select {
		case err := <-d.done:
			d.t.Fatalf("the demo has ended: %v", err)
		default:
		}
		if time.Now().After(end) {
			d.t.Fatalf("the demo does not print %s", pattern)
		}
	}
}

// left is what of the demo is still there: namespaces, interfaces and processes.
func (d *demoRun) left() (all []string) {
	lab := "hwlab-" + strconv.Itoa(d.cmd.Process.Pid)
	spaces, _ := filepath.Glob("/var/run/netns/" + lab + "-*")
	all = append(all, spaces...)
	if _, err := net.InterfaceByName(lab); err == nil {
		all = append(all, "interface "+lab)
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		b, err := os.ReadFile(f)
		if line := strings.ReplaceAll(string(b), "\x00", " "); err == nil && (strings.Contains(line, d.dir) || strings.Contains(line, lab)) {
			all = append(all, line)
		}
	}
	return all
}

// end stops the demo and looks at what it leaves behind.
func (d *demoRun) end(s syscall.Signal) {
	d.t.Helper()
	must(d.t, d.cmd.Process.Signal(s))
	select {
	case err := <-d.done:
		if s != syscall.SIGKILL && err != nil {
			d.t.Errorf("the demo ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		d.t.Fatal("the demo does not end")
	}
}

// seen reads the number and the counter that are drawn into the picture on the screen.
const seen = `const v = document.querySelector(".call video"); if (!v || !v.videoWidth) return null
const c = new OffscreenCanvas(640, 360).getContext("2d"); c.drawImage(v, 0, 0, 640, 360)
let bits = ""
for (let i = 0; i < 48; i++) bits += c.getImageData(50 + i % 28 * 20, 30 + Math.floor(i / 28) * 20, 1, 1).data[1] > 128 ? 1 : 0
return { number: parseInt(bits.slice(0, 32), 2).toString(16).padStart(8, "0"), counter: parseInt(bits.slice(32), 2) }`

// heard adds up the statistics of what is received.
const heard = `const out = { frames: 0, energy: 0 }
for (const pc of globalThis.pcs ?? []) for (const s of (await pc.getStats()).values()) if (s.type === "inbound-rtp") { out.frames += s.framesDecoded ?? 0; out.energy += s.totalAudioEnergy ?? 0 }
return out`

type inPage struct {
	Number  string
	Counter int
	Frames  int
	Energy  float64
}

func (b *browser) look(at *inPage) {
	b.t.Helper()
	b.run(seen, at)
	b.run(heard, at)
}

// The address that the demo prints opens the companion in a browser on this machine, which
// belongs to the home at once and calls its rooms; afterwards nothing of the demo is left.
func TestDemoInABrowserOfTheMachine(t *testing.T) {
	withApp(t)
	for _, name := range []string{"namespaces", "loopback"} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--loopback"}
			if taken, err := net.Listen("tcp", "127.0.0.1:8443"); err == nil { // by whom else is all the same
				defer func() { _ = taken.Close() }()
			}
			if name == "namespaces" {
				withLabs(t)
				args = nil
			}
			d := startDemo(t, args...)
			address := d.find(60*time.Second, `(?m)^ +(http://localhost:\d+/#pair=\S+)$`)
			number := d.find(0, `clip of the Kitchen panel: number ([0-9a-f]{8})`)
			b := startBrowser(t, drive.Options{Command: onMachine, Args: append(drive.Media(), "--autoplay-policy=no-user-gesture-required")})
			if _, err := b.open(address); err != nil {
				t.Fatal(err)
			}
			b.wait("[data-slug=kitchen-panel][aria-disabled=false]")
			var cookies bool
			origin, _, _ := strings.Cut(address, "#")
			b.run(`return (await fetch("/api/v1/session")).ok && document.cookie === ""`, &cookies)
			if !cookies {
				t.Error("the browser keeps no session, or shows its cookie to the page")
			}
			if name == "namespaces" {
				b.draw("demo-house")
				if _, err := b.open(origin + "panel"); err != nil {
					t.Fatal(err)
				}
				b.click(drive.Button("Start the panel"))
				b.wait("[data-slug=kitchen][aria-disabled=false]")
				b.draw("demo-panel")
			}
			if _, err := b.open(origin); err != nil { // a page that is loaded anew goes on
				t.Fatal(err)
			}
			b.wait("[data-slug=kitchen-panel][aria-disabled=false]")
			b.run(`globalThis.pcs = []; const Plain = RTCPeerConnection; RTCPeerConnection = class extends Plain { constructor(...a) { super(...a); pcs.push(this) } }`, nil)

			b.click(drive.Button("Call Kitchen"))
			b.wait("text=In a call with Kitchen")
			var first, later inPage
			poll(t, 10*time.Second, "the kitchen is seen and heard", func() bool {
				b.look(&first)
				return first.Number == number && first.Frames > 0 && first.Energy > 0
			})
			poll(t, 10*time.Second, "the picture moves", func() bool {
				b.look(&later)
				return later.Number == number && later.Counter != first.Counter && later.Frames > first.Frames+25 && later.Energy > first.Energy
			})
			t.Logf("first %+v, later %+v", first, later)
			if name == "namespaces" {
				b.draw("demo-call")
			}
			b.click(drive.Button("Hang up"))
			b.click(drive.Button("Close"))
			b.click("[data-slug=front-door]")
			number = d.find(0, `clip of the Front door: number ([0-9a-f]{8})`)
			poll(t, 10*time.Second, "the door's camera is seen", func() bool { b.look(&first); return first.Number == number })

			d.end(syscall.SIGINT)
			if left := d.left(); len(left) > 0 {
				t.Errorf("the demo leaves behind: %q", left)
			}
		})
	}
}

// A demo that is killed leaves no cable to the machine, and its next run removes the rest.
func TestDemoThatIsKilled(t *testing.T) {
	withLabs(t)
	d := startDemo(t)
	d.find(60*time.Second, `(?m)^ +(http://localhost:\d+/#pair=\S+)$`)
	if left := strings.Join(d.left(), "\n"); !strings.Contains(left, "interface") || !strings.Contains(left, "netns") {
		t.Fatalf("there is nothing to leave behind: %s", left)
	}
	d.end(syscall.SIGKILL)
	poll(t, 5*time.Second, "only namespaces are left", func() bool {
		for _, x := range d.left() {
			if !strings.HasPrefix(x, "/var/run/netns/") {
				return false
			}
		}
		return true
	})
	newLab(t)
	if left := d.left(); len(left) > 0 {
		t.Errorf("the next run leaves %q", left)
	}
}

// withLabs skips where the demo would be on loopback.
func withLabs(t *testing.T) {
	t.Helper()
	l, err := netlab.New()
	if errors.Is(err, netlab.ErrUnsupported) {
		missing(t, err.Error())
	}
	must(t, err)
	must(t, l.Close())
}

func poll(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen within %v: %s", limit, what)
		}
	}
}
