package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// crowd is a home of many agents in a lab of their own.
type crowd struct {
	lab    *netlab.Lab
	root   string
	agents []*agent
}

func slugOf(i int) string { return fmt.Sprintf("n%02d", i) }

// newCrowd makes a home of n agents, each of which sees all others. close it whatever comes.
func newCrowd(binary string, n int) (*crowd, error) {
	lab, err := netlab.New()
	if err != nil {
		return nil, err
	}
	c := &crowd{lab: lab}
	if c.root, err = os.MkdirTemp("", "hallway-bench"); err != nil {
		return c, err
	}
	for i := range n {
		a, err := newAgent(lab, c.root, slugOf(i), "speaker")
		if err != nil {
			return c, err
		}
		c.agents = append(c.agents, a)
		if err := c.admit(binary, i); err != nil {
			return c, err
		}
	}
	return c, c.settled()
}

func (c *crowd) admit(binary string, i int) error {
	a, owner := c.agents[i], c.agents[0]
	if i == 0 {
		if err := a.start(binary); err != nil {
			return err
		}
		return a.do("POST", "/home", `{"name":"Bench"}`, nil)
	}
	// With a seed the joining does not wait for multicast to bring the owner's open window.
	seed := fmt.Sprintf(`{"seed":"%s:5061"}`, owner.host.IPv4)
	var inv struct{ Token string }
	if err := owner.do("POST", "/invite", seed, &inv); err != nil {
		return err
	}
	if err := a.start(binary, "--join", inv.Token); err != nil {
		return err
	}
	return until(60*time.Second, "a device joins", func() bool { return owner.sees(slugOf(i)) })
}

// settled waits until everybody sees everybody.
func (c *crowd) settled() error {
	for _, a := range c.agents {
		if err := until(60*time.Second, "everybody sees everybody", func() bool { return a.reaches() == len(c.agents) }); err != nil {
			return err
		}
	}
	return nil
}

// reaches counts the devices that an agent can reach, itself included.
func (a *agent) reaches() int {
	var v struct {
		Devices []struct{ Status string }
	}
	if a.do("GET", "/devices", "", &v) != nil {
		return 0
	}
	n := 0
	for _, d := range v.Devices {
		if d.Status == "reachable" {
			n++
		}
	}
	return n
}

func (c *crowd) close() error {
	for _, a := range c.agents {
		if a.cmd != nil && a.cmd.Process != nil {
			_ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGTERM)
		}
	}
	for _, a := range c.agents {
		if a.cmd != nil {
			_ = a.cmd.Wait()
		}
	}
	return errors.Join(c.lab.Close(), os.RemoveAll(c.root))
}

// missed listens to an agent's events and says when it lists a device as unreachable.
func (a *agent) missed(ctx context.Context, slug string, at chan<- time.Time) error {
	conn, err := net.Dial("unix", filepath.Join(a.dir, "hallway.sock"))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, "GET /api/v1/events HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
		return err
	}
	go func() {
		defer func() { _ = conn.Close() }()
		for r := bufio.NewReader(conn); ; {
			l, err := r.ReadString('\n')
			if err != nil {
				return
			}
			now := time.Now()
			var e struct {
				Change struct {
					Device struct{ Slug, Status string }
				}
			}
			data, ok := strings.CutPrefix(l, "data: ")
			if ok && json.Unmarshal([]byte(data), &e) == nil && e.Change.Device.Slug == slug && e.Change.Device.Status == "unreachable" {
				at <- now
				return
			}
		}
	}()
	return nil
}

// listening is how long streams are given to open: they say nothing before their first event.
const listening = 300 * time.Millisecond

// knownByAll does something to the agent and says after how many milliseconds the last of
// the others lists it as unreachable.
func (c *crowd) knownByAll(victim int, strike func(*agent) error) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	at := make(chan time.Time, len(c.agents))
	for i, a := range c.agents {
		if i == victim {
			continue
		}
		if err := a.missed(ctx, slugOf(victim), at); err != nil {
			return 0, err
		}
	}
	time.Sleep(listening)
	began := time.Now()
	if err := strike(c.agents[victim]); err != nil {
		return 0, err
	}
	last := began
	for range len(c.agents) - 1 {
		select {
		case t := <-at:
			if t.After(last) {
				last = t
			}
		case <-ctx.Done():
			return 0, errors.New("not everybody noticed that a device is gone")
		}
	}
	return float64(last.Sub(began).Microseconds()) / 1000, nil
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// rounds repeats a strike and brings the victim back each time.
func (c *crowd) rounds(n int, strike, back func(*agent) error) ([]float64, error) {
	var all []float64
	for i := range n {
		victim := 1 + i%(len(c.agents)-1)
		took, err := c.knownByAll(victim, strike)
		if err == nil {
			err = back(c.agents[victim])
		}
		if err == nil {
			err = c.settled()
		}
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	return all, nil
}

// memberlist is what its users have: github.com/hashicorp/memberlist v0.7.0 with its defaults.
const memberlist = "memberlist, defaults: 8500 ms (measured earlier)"

// crashes is how soon all others know that an agent was killed, or its cable pulled.
func crashes(binary string) (rows []row, err error) {
	for _, n := range []int{10, 30} {
		more, err := crashesIn(binary, n)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func crashesIn(binary string, n int) (rows []row, err error) {
	c, err := newCrowd(binary, n)
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.close())
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	killed, err := c.rounds(7, func(a *agent) error { return syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL) }, func(a *agent) error {
		_ = a.cmd.Wait()
		return a.start(binary)
	})
	if err != nil {
		return nil, err
	}
	pulled, err := c.rounds(3, func(a *agent) error { return a.host.Down() }, func(a *agent) error { return a.host.Up() })
	if err != nil {
		return nil, err
	}
	name := func(what string) string { return what + " known by all, N=" + strconv.Itoa(n) + ", median" }
	return []row{
		{Name: name("crash"), Value: median(killed), Unit: "ms", Budget: 50, Peer: memberlist},
		{Name: name("pulled plug"), Value: median(pulled), Unit: "ms", Budget: 4000, Peer: memberlist},
	}, nil
}

const (
	// many is the largest home that the mesh is made for.
	many = 64
	// quiet is how long a home is left alone before its cost is measured, and looked at for
	// how long: what discovery does now and then is part of it.
	quiet, looked = 45 * time.Second, time.Minute
)

// cost is what an agent used in a time.
type cost struct {
	ticks int   // of the processor, in hundredths of a second
	sent  int64 // bytes on the wire, all headers included
}

func (a *agent) cost() (c cost, err error) {
	if c.ticks, err = cpuTicks(a.cmd.Process.Pid); err != nil {
		return c, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", a.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	for l := range strings.Lines(string(b)) {
		name, figures, ok := strings.Cut(l, ":")
		if f := strings.Fields(figures); ok && strings.TrimSpace(name) != "lo" && len(f) >= 9 {
			n, err := strconv.ParseInt(f[8], 10, 64) // transmitted
			if err != nil {
				return c, err
			}
			c.sent += n
		}
	}
	return c, nil
}

// rate is what an agent used in a second.
type rate struct{ kB, percent float64 }

func mean(all []rate) (m rate) {
	for _, r := range all {
		m.kB += r.kB / float64(len(all))
		m.percent += r.percent / float64(len(all))
	}
	return m
}

// rates measures all agents over the same time.
func rates(agents []*agent) ([]rate, error) {
	before := make([]cost, len(agents))
	began := make([]time.Time, len(agents))
	for i, a := range agents {
		var err error
		if before[i], err = a.cost(); err != nil {
			return nil, err
		}
		began[i] = time.Now()
	}
	time.Sleep(looked)
	out := make([]rate, len(agents))
	for i, a := range agents {
		after, err := a.cost()
		if err != nil {
			return nil, err
		}
		took := time.Since(began[i]).Seconds()
		// A tick is a hundredth of a second, so ticks a second are per cent.
		out[i] = rate{float64(after.sent-before[i].sent) / 1000 / took, float64(after.ticks-before[i].ticks) / took}
	}
	return out, nil
}

// crowds is what a home of 64 costs each of its agents, in a call or not. Both are measured
// at the same time: what comes now and then (announcements, neighbour discovery) is in both.
// All that leaves the interface counts. The two in the call have neither camera nor
// microphone, so there is no media to be told apart: what the call adds is ICE consent, RTCP
// and SIP.
func crowds(binary string) (rows []row, err error) {
	c, err := newCrowd(binary, many)
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.close())
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	time.Sleep(quiet)
	var call struct{ ID, State string }
	if err := c.agents[0].do("POST", "/calls", `{"to":"n01"}`, &call); err != nil {
		return nil, err
	}
	active := func() bool {
		return c.agents[0].do("GET", "/calls/"+call.ID, "", &call) == nil && call.State == "active"
	}
	if err := until(10*time.Second, "the call is active", active); err != nil {
		return nil, err
	}
	all, err := rates(c.agents)
	if err != nil {
		return nil, err
	}
	if !active() {
		return nil, fmt.Errorf("the call is %q", call.State)
	}
	idle, inCall := mean(all[2:]), mean(all[:2])
	rss, err := c.largest()
	return []row{
		{Name: "64 nodes, idle, sent by each", Value: idle.kB, Unit: "kB/s", Budget: 8},
		{Name: "64 nodes, idle, share of a core of each", Value: idle.percent, Unit: "%", Budget: 0.5},
		{Name: "64 nodes, in a call without media, sent by each", Value: inCall.kB, Unit: "kB/s", Budget: 8},
		{Name: "64 nodes, in a call without media, share of a core", Value: inCall.percent, Unit: "%", Budget: 0.5},
		{Name: "64 nodes, memory (RSS) of the largest", Value: rss, Unit: "MiB", Budget: 32},
	}, err
}

func (c *crowd) largest() (float64, error) {
	var all []float64
	for _, a := range c.agents {
		m, err := memory(a.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		all = append(all, m)
	}
	return slices.Max(all), nil
}
