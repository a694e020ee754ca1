// Package doctor owns the checks that need no running agent: interfaces, multicast,
// the member port, the clock, the disk, and the programs, encoders and decoders that pipelines need.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/profiles"
)

// lowDisk is when writing soon fails; the store needs a few megabytes.
const lowDisk = 16 << 20

// Local runs all checks; running tells whether an agent holds the port already.
func Local(ctx context.Context, c config.Config, running bool) []api.Check {
	out := []api.Check{interfaces(c), multicast(c), port(c, running), clock(time.Now()), disk(c)}
	return append(append(append(out, peers(c)...), pipelines(c)...), codecs(ctx, c)...)
}

func ok(name, format string, args ...any) api.Check {
	return api.Check{Name: name, Level: "ok", Words: fmt.Sprintf(format, args...)}
}

func usable(c config.Config) []net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		if i.Flags&net.FlagUp == 0 {
			return true
		}
		if len(c.Interfaces) > 0 {
			return !slices.Contains(c.Interfaces, i.Name)
		}
		addrs, _ := i.Addrs()
		return i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagMulticast == 0 || len(addrs) == 0
	})
}

// Links names the interfaces that the agent may use: those that are connected, and those
// that are up without cable or Wi-Fi.
func Links(c config.Config) (connected, loose []string) {
	for _, i := range usable(c) {
		if i.Flags&net.FlagRunning == 0 {
			loose = append(loose, i.Name)
		} else {
			connected = append(connected, i.Name)
		}
	}
	return connected, loose
}

func interfaces(c config.Config) api.Check {
	for _, want := range c.Interfaces {
		if _, err := net.InterfaceByName(want); err != nil {
			return api.Check{Name: "interfaces", Level: "fail", Words: "there is no interface " + want, Advice: "correct `interfaces` in hallway.yaml; `ip link` lists them"}
		}
	}
	names, loose := Links(c)
	switch {
	case len(names) == 0 && len(loose) > 0:
		return api.Check{Name: "interfaces", Level: "fail", Words: fmt.Sprintf("%s has no cable or Wi-Fi", strings.Join(loose, ", ")), Advice: "plug the cable in, or join the Wi-Fi"}
	case len(names) == 0:
		return api.Check{Name: "interfaces", Level: "fail", Words: "no network interface is up with an address", Advice: "connect the network"}
	}
	return ok("interfaces", "%s", strings.Join(names, ", "))
}

// multicast joins the mDNS groups (RFC 6762 section 3) on each interface; it sends nothing.
func multicast(c config.Config) api.Check {
	var joined []string
	var errs []error
	for _, i := range usable(c) {
		err4, err6 := join("udp4", i, net.IPv4(224, 0, 0, 251)), join("udp6", i, net.ParseIP("ff02::fb"))
		if err4 != nil && err6 != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.Name, err4))
		} else {
			joined = append(joined, i.Name)
		}
	}
	if len(joined) == 0 {
		words := "no interface can join the discovery group"
		if err := errors.Join(errs...); err != nil {
			words += ": " + err.Error()
		}
		return api.Check{Name: "multicast", Level: "fail", Words: words, Advice: "devices cannot find each other; name them in `peers`, or allow multicast"}
	}
	return ok("multicast", "the discovery group can be joined on %s", strings.Join(joined, ", "))
}

func join(network string, i net.Interface, group net.IP) error {
	conn, err := net.ListenMulticastUDP(network, &i, &net.UDPAddr{IP: group, Port: 5353})
	if err != nil {
		return err
	}
	return conn.Close()
}

func port(c config.Config, running bool) api.Check {
	if running {
		return ok("port", "%s is served by the running agent", c.Listen)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return api.Check{Name: "port", Level: "fail", Words: fmt.Sprintf("the member port %s cannot be used: %v", c.Listen, err), Advice: "stop the program that holds it, or choose another with --listen"}
	}
	_ = ln.Close()
	return ok("port", "%s is free", c.Listen)
}

// clock only warns: nothing in a home depends on it but what people read.
func clock(now time.Time) api.Check {
	if now.Year() < 2025 {
		return api.Check{Name: "clock", Level: "warn", Words: "the clock says " + now.Format("2006-01-02"), Advice: "calls work; times in lists will be wrong until it is set"}
	}
	return ok("clock", "%s", now.Format(time.RFC3339))
}

func disk(c config.Config) api.Check {
	dir := c.Data
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".hallway-*")
	if err != nil {
		why := err
		var p *os.PathError
		if errors.As(err, &p) {
			why = p.Err
		}
		return api.Check{Name: "disk", Level: "fail", Words: fmt.Sprintf("cannot write in %s: %v", dir, why), Advice: "choose another data folder with --data"}
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err == nil && st.Bavail*uint64(st.Bsize) < lowDisk { //nolint:gosec // a block size is positive
		return api.Check{Name: "disk", Level: "warn", Words: fmt.Sprintf("less than 16 MiB are free in %s", dir), Advice: "free some space"}
	}
	return ok("disk", "%s can be written", dir)
}

// peerTime bounds the dial of a configured peer on a home's network.
const peerTime = 2 * time.Second

// peers dials the addresses that the configuration names, side by side; nothing is sent.
func peers(c config.Config) []api.Check {
	out := make([]api.Check, len(c.Peers))
	var wg sync.WaitGroup
	for i, p := range c.Peers {
		wg.Go(func() {
			conn, err := net.DialTimeout("tcp", p, peerTime)
			if err != nil {
				out[i] = api.Check{Name: "peers", Level: "warn", Words: fmt.Sprintf("the configured peer %s does not answer: %v", p, err), Advice: "check its address in `peers`, and whether it is on"}
				return
			}
			_ = conn.Close()
			out[i] = ok("peers", "%s answers", p)
		})
	}
	wg.Wait()
	return out
}

func pipelines(c config.Config) []api.Check {
	var out []api.Check
	for name, get := range map[string]func() (*profiles.Pipeline, error){"source": c.SourcePipeline, "sink": c.SinkPipeline} {
		p, err := get()
		switch {
		case err != nil:
			out = append(out, api.Check{Name: name, Level: "fail", Words: err.Error(), Advice: "`hallway profiles` lists the pipelines of each class"})
		case p == nil:
		default:
			if _, err := exec.LookPath(p.Command[0]); err != nil {
				out = append(out, api.Check{Name: name, Level: "fail", Words: fmt.Sprintf("the pipeline %s needs the program %s, which is not installed", p.Name, p.Command[0]), Advice: "install it, or choose another pipeline"})
				continue
			}
			out = append(out, ok(name, "pipeline %s with %s", p.Name, p.Command[0]))
		}
	}
	if c.Source.Clip != "" {
		if _, err := os.Stat(c.Source.Clip); err != nil {
			out = append(out, api.Check{Name: "source", Level: "fail", Words: fmt.Sprintf("the clip cannot be read: %v", err), Advice: "correct source.clip; `make clips` makes some"})
		} else {
			out = append(out, ok("source", "clip %s", c.Source.Clip))
		}
	}
	slices.SortFunc(out, func(a, b api.Check) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return out
}
