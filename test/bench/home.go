package main

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

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
	if err != nil {
		return rows, err
	}
	rows = append(rows, row{Name: "idle memory (RSS)", Value: rss, Unit: "MiB", Budget: 20})
	ready, err := starts(binary, tv)
	return append(rows, ready), err
}

// starts is the median time from a process's start to the first answer of its API.
func starts(binary string, a *agent) (row, error) {
	var all []float64
	for range 5 {
		a.stop()
		began := time.Now()
		if err := a.start(binary); err != nil {
			return row{}, err
		}
		all = append(all, float64(time.Since(began).Microseconds())/1000)
	}
	slices.Sort(all)
	return row{Name: "start to ready, median", Value: all[len(all)/2], Unit: "ms", Budget: 200}, nil
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

// idle is the share of a core that an agent in a home of three uses: the mean of all, since
// the system counts in hundredths of a second.
func idle(_ string, agents []*agent) (row, error) {
	all, err := rates(agents)
	return row{Name: "idle, share of a core", Value: mean(all).percent, Unit: "%", Budget: 0.25}, err
}
