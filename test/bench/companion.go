package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/cmd/companion"
	"github.com/hallway-home/hallway/test/browser"
	"github.com/hallway-home/hallway/test/netlab"
)

const (
	companionRounds = 11
	// keyEvery is the camera's group of pictures, in frames of 1/25 s: 2 s, as cameras are shipped.
	keyEvery = "50"
	// tapped settles once the tap that comes next is answered by a picture of the other side, and
	// says after how many ms of the event it was on the screen.
	tapped = `globalThis.first = new Promise((done) => addEventListener('click', (e) => {
	const look = () => {
		const v = document.querySelector('.call video:not(.small)')
		if (v) v.requestVideoFrameCallback((now) => done(now - e.timeStamp)); else requestAnimationFrame(look)
	}
	look()
}, { capture: true, once: true })); return null`
	// first gives it.
	first = `return await Promise.race([first, new Promise((_, no) => setTimeout(() => no(new Error('no picture within 10 s')), 10000))])`
	// opened says after how many ms of its opening the page showed the house and followed it.
	opened = `const at = () => ['house', 'live'].map((m) => performance.getEntriesByName(m)[0]?.startTime ?? Infinity)
for (let i = 0; i < 500 && Math.max(...at()) === Infinity; i++) await new Promise((done) => setTimeout(done, 10))
return Math.max(...at())`
)

// page is the companion in a browser, in a home of a TV that serves it, a panel that answers by
// itself, and a camera for which the TV speaks.
type page struct {
	*crowd
	*browser.Browser
	camera *exec.Cmd
	origin string
	phone  *netlab.Host
	server int // the agent to which the home's name leads
}

// companions measures what somebody with the companion waits for.
func companions(binary string) (rows []row, err error) {
	size, err1 := bundle()
	if err := errors.Join(err1, browser.Ready()); err != nil {
		return nil, err
	}
	p, err := newPage(binary)
	defer func() { err = errors.Join(err, p.close()) }()
	if err != nil {
		return nil, err
	}
	opens, err := p.times(func() (ms float64, err error) {
		if _, err = p.Open(p.origin); err == nil {
			err = p.Run(opened, &ms)
		}
		return ms, err
	})
	if err != nil {
		return nil, err
	}
	kitchen, err := p.times(func() (float64, error) { return p.tap(slugOf(1)) })
	if err != nil {
		return nil, err
	}
	alone, err := p.times(func() (float64, error) { return p.tap("gate") })
	if err != nil {
		return nil, err
	}
	// Somebody else looks at it already.
	if err := p.agents[1].do("POST", "/calls", `{"to":"gate","video":true}`, nil); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second)
	gate, err := p.times(func() (float64, error) { return p.tap("gate") })
	if err != nil {
		return nil, err
	}
	fails, err := p.times(func() (float64, error) { return p.failover(binary) })
	if err != nil {
		return nil, err
	}
	return []row{
		{Name: "companion: all that a browser loads, compressed", Value: size, Unit: "kB", Budget: 150},
		timed("companion: opened to the house, live", opens, 300, ""),
		timed("companion: tap on a panel to its picture", kitchen, 250, ""),
		timed("companion: tap on a camera, seen already, to its picture", gate, 120, "go2rtc, MediaMTX 1200 to 1300 (measured earlier)"),
		// The camera is connected by this tap, and its next key frame is up to 2 s away.
		timed("companion: tap on a camera that nobody sees to its picture", alone, 2500, ""),
		timed("companion: its device killed, through another it can call again", fails, 3000, ""),
	}, nil
}

func timed(name string, all []float64, budget float64, peer string) row {
	fmt.Fprintf(os.Stderr, "%s: %.0f ms\n", name, all)
	return row{Name: name + ", median", Value: median(all), Worst: slices.Max(all), Unit: "ms", Budget: budget, Peer: peer}
}

func (p *page) times(f func() (float64, error)) (all []float64, err error) {
	for range companionRounds {
		ms, err := f()
		if err != nil {
			return nil, err
		}
		all = append(all, ms)
	}
	return all, nil
}

func newPage(binary string) (*page, error) {
	p := &page{crowd: &crowd{}}
	var err error
	if p.root, err = os.MkdirTemp("", "hallway-bench"); err != nil {
		return p, err
	}
	clips := exec.Command(binary, "demo", "--clips", "--dir", p.root+"/demo") //nolint:noctx // ends by itself
	if out, err := clips.CombinedOutput(); err != nil {
		return p, fmt.Errorf("%w: %s", err, out)
	}
	if p.lab, err = netlab.New(); err != nil {
		return p, err
	}
	for i, class := range []string{"tv", "panel"} {
		a, err := newAgent(p.lab, p.root, slugOf(i), class)
		if err != nil {
			return p, err
		}
		a.args = append(a.args, "--source-clip", filepath.Join(p.root, "demo", "clips", class+".mkv"))
		p.agents = append(p.agents, a)
		if err := p.admit(binary, i); err != nil {
			return p, err
		}
	}
	if err := p.settled(); err != nil {
		return p, err
	}
	return p, errors.Join(p.adopt(), p.enter())
}

// adopt starts the camera, an RTSP server with pictures that can be decoded, and gives it a name.
func (p *page) adopt() error {
	program, pictures := filepath.Join(p.root, "rtspcamera"), filepath.Join(p.root, "picture.h264")
	for _, c := range [][]string{
		{"go", "build", "-o", program, "./test/e2e/rtspcamera"},
		{"ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-t", "8", "-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-tune", "zerolatency",
			"-pix_fmt", "yuv420p", "-g", keyEvery, "-keyint_min", keyEvery, "-sc_threshold", "0", "-b:v", "2M", "-x264-params", "aud=1", "-f", "h264", pictures},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil { //nolint:noctx // ends by itself
			return fmt.Errorf("%s: %w: %s", c[0], err, out)
		}
	}
	h, err := p.lab.Host("camera")
	if err != nil {
		return err
	}
	p.camera = h.Command(context.Background(), program, "-listen", ":554", "-h264", pictures)
	p.camera.Stderr = os.Stderr
	if err := p.camera.Start(); err != nil {
		return err
	}
	body := fmt.Sprintf(`{"uri":"rtsp://%s:554/stream","name":"Gate"}`, h.IPv4)
	if err := until(10*time.Second, "the camera is adopted", func() bool { return p.agents[0].do("POST", "/home/cameras", body, nil) == nil }); err != nil {
		return err
	}
	return until(30*time.Second, "the panel knows the camera", p.agents[1].knowsGate)
}

// enter starts the browser and makes it a phone of the home.
func (p *page) enter() error {
	tv := p.agents[0]
	var trust struct {
		URL   string
		Ready bool
	}
	if err := until(20*time.Second, "the companion has a certificate", func() bool { return tv.do("GET", "/home/trust", "", &trust) == nil && trust.Ready }); err != nil {
		return err
	}
	p.origin = trust.URL
	ca, err := tv.host.Command(context.Background(), "curl", "-sk", "https://"+net.JoinHostPort(tv.host.IPv4, "8443")+"/trust/hallway.crt").Output()
	if err != nil {
		return err
	}
	h, err := p.lab.Host("phone")
	if err != nil {
		return err
	}
	p.phone = h
	dir := filepath.Join(p.root, "browser")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(trust.URL, "https://"), ":")
	args := append(browser.Media(), "--autoplay-policy=no-user-gesture-required", "--host-resolver-rules=MAP "+name+" "+homeAddr)
	if err := p.lead(0); err != nil {
		return err
	}
	if p.Browser, err = browser.Start(browser.Options{Command: h.Command, Dir: dir, CA: ca, Args: args}); err != nil {
		return err
	}
	var w struct{ URL string }
	if err := tv.do("POST", "/phones/window", `{"name":"Bench","trusted":true}`, &w); err != nil {
		return err
	}
	if _, err := p.Open(w.URL); err != nil {
		return err
	}
	return errors.Join(p.Act("click", browser.Button("Pair"), ""), p.Act("wait", "[data-slug=gate][aria-disabled=false]", ""))
}

// tap calls a device and hangs up once its picture is there.
func (p *page) tap(slug string) (ms float64, err error) {
	if err := p.Act("wait", "[data-slug="+slug+"][aria-disabled=false]", ""); err != nil {
		return 0, err
	}
	if err := p.Run(tapped, nil); err != nil {
		return 0, err
	}
	if err := p.Act("click", "[data-slug="+slug+"]", ""); err != nil {
		return 0, err
	}
	if err := p.Run(first, &ms); err != nil {
		return 0, err
	}
	err = errors.Join(p.Act("click", browser.Button("Hang up"), ""), p.Act("click", browser.Button("Close"), ""))
	// The other side is free again, and the camera anywhere in its group of pictures.
	time.Sleep(500*time.Millisecond + rand.N(2*time.Second))
	return ms, err
}

// homeAddr is where the home's name leads the browser: to the device that has it, as answers of
// mDNS would.
const homeAddr = "10.77.0.250"

// lead makes the home's name lead to an agent's host, which may have been another's.
func (p *page) lead(to int) error {
	from := p.agents[p.server].host
	_ = from.Command(context.Background(), "ip", "addr", "del", homeAddr+"/32", "dev", "lo").Run() // the first time there is none
	p.server = to
	err := p.agents[to].host.Command(context.Background(), "ip", "addr", "add", homeAddr+"/32", "dev", "lo").Run()
	if p.phone == nil {
		return err
	}
	return errors.Join(err, p.phone.Command(context.Background(), "ip", "neigh", "flush", "all").Run())
}

// failover kills the agent that serves the page and says after how many ms the page follows the
// home and can call through the other one.
func (p *page) failover(binary string) (ms float64, err error) {
	victim := p.agents[p.server]
	const live = `performance.getEntriesByName('live')[0].startTime`
	var before, now float64
	if err := p.Run("return "+live, &before); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := syscall.Kill(-victim.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		return 0, err
	}
	_ = victim.cmd.Wait() // killed
	if err := p.lead(1 - p.server); err != nil {
		return 0, err
	}
	again := fmt.Sprintf(`return document.querySelector('[data-slug=%s][aria-disabled=false]') && !document.querySelector('.notice') ? %s : 0`, slugOf(p.server), live)
	if err := until(15*time.Second, "the page goes on", func() bool { return p.Run(again, &now) == nil && now > before }); err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Microseconds()) / 1000
	return ms, errors.Join(victim.start(binary), p.settled())
}

func (p *page) close() error {
	if p.Browser != nil {
		p.Close()
	}
	if p.camera != nil && p.camera.Process != nil {
		_ = syscall.Kill(-p.camera.Process.Pid, syscall.SIGKILL)
		_ = p.camera.Wait()
	}
	if p.lab == nil {
		return os.RemoveAll(p.root)
	}
	return p.crowd.close()
}

// bundle is what a browser loads of the companion, compressed, all files together, in kB.
func bundle() (kB float64, err error) {
	if _, err := fs.Stat(companion.Files(), "index.html"); err != nil {
		return 0, fmt.Errorf("the companion was not built (make companion): %w", err)
	}
	var n counter
	err = fs.WalkDir(companion.Files(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || name == "placeholder.html" {
			return err
		}
		b, err := fs.ReadFile(companion.Files(), name)
		if err != nil {
			return err
		}
		z, err := gzip.NewWriterLevel(&n, gzip.BestCompression)
		if err == nil {
			_, err = z.Write(b)
		}
		return errors.Join(err, z.Close())
	})
	return float64(n) / 1000, err
}

// counter counts what is written.
type counter int64

var _ io.Writer = (*counter)(nil)

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
