package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	places  = 50  // nodes
	changed = 200 // records that change at once
)

// meshes measures the overlay alone, many nodes in this process.
func meshes(string) ([]row, error) {
	root, err := memoryFolder()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(root) }()
	heal, err := heals()
	if err != nil {
		return nil, err
	}
	spread, err := spreads(root)
	if err != nil {
		return nil, err
	}
	return []row{
		{Name: "10-minute cut to agreement, slowest, virtual", Value: heal.Seconds(), Unit: "s", Budget: 5},
		{Name: fmt.Sprintf("%d records at once in %d nodes, one process", changed, places), Value: spread.Seconds(), Unit: "s", Budget: 5},
	}, nil
}

// memoryFolder is in memory where there is such a place: the disk of one machine is not
// that of fifty nodes.
func memoryFolder() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "hallway-bench"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "hallway-bench")
}

// heals takes the figure from the simulator: virtual time needs a test binary.
func heals() (time.Duration, error) {
	out, err := exec.Command("go", "test", "-count=1", "-v", "-run", "^TestSim_HealsAfterTenMinutes$", "./test/sim").CombinedOutput()
	m := regexp.MustCompile(`measured: healed (\S+) after`).FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("the simulator gives no figure: %w: %s", err, out)
	}
	return time.ParseDuration(string(m[1]))
}

// place is one node of the crowd.
type place struct {
	id    devices.NodeID
	key   *ecdsa.PrivateKey
	store *devices.Store
	log   *trust.Log
	mesh  *overlay.Mesh
	addr  netip.AddrPort
	done  chan error
}

// spreads is how long it takes until all nodes have what all write at once: real TLS over
// loopback, and all nodes share this machine's cores.
func spreads(root string) (took time.Duration, err error) {
	ctx, stop := context.WithCancel(context.Background())
	var all []*place
	defer func() {
		stop()
		for _, p := range all {
			if p.done != nil {
				err = errors.Join(err, <-p.done)
			}
			err = errors.Join(err, p.store.Close())
		}
	}()
	for i := range places {
		p, err := openPlace(filepath.Join(root, fmt.Sprint(i)))
		if err != nil {
			return 0, err
		}
		all = append(all, p)
	}
	if err := settleIn(ctx, all); err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range changed {
		p := all[i%places]
		if err := p.mesh.Publish(fmt.Sprint("kind", i/places), fmt.Sprintf("%0200d", i)); err != nil {
			return 0, err
		}
	}
	err = until(time.Minute, "all nodes have all records", func() bool {
		for _, p := range all {
			if len(p.mesh.Records()) < changed {
				return false
			}
		}
		return true
	})
	return time.Since(began), err
}

func openPlace(dir string) (*place, error) {
	store, err := devices.OpenStore(dir, devices.StoreOptions{})
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	log, err := trust.OpenLog(store)
	return &place{store: store, key: key, id: devices.NodeIDOf(&key.PublicKey), log: log}, err
}

// settleIn makes one home of all, starts them and waits until each has a flow with each.
func settleIn(ctx context.Context, all []*place) error {
	first := all[0]
	if _, err := first.log.Create(first.key, trust.CreateParams{HomeName: "Bench", Name: "node 0"}); err != nil {
		return err
	}
	for i, p := range all[1:] {
		if _, err := first.log.Admit(first.key, trust.Candidate{Key: devices.CompressedKey(&p.key.PublicKey), Name: fmt.Sprint("node ", i+1)}); err != nil {
			return err
		}
	}
	for _, p := range all {
		if err := p.log.Adopt(first.log.Edits(), first.log.Roster().Home, p.id); err != nil {
			return err
		}
		mesh, err := overlay.New(overlay.Config{Key: p.key, Roster: p.log, Store: p.store, Listen: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		if p.addr, err = mesh.Listen(); err != nil {
			return err
		}
		p.mesh, p.done = mesh, make(chan error, 1)
		go func() { p.done <- mesh.Run(ctx) }()
		go drain(mesh.SIP())
	}
	for _, p := range all {
		for _, o := range all {
			p.mesh.HintPrefix([8]byte(o.id[:8]), []netip.AddrPort{o.addr})
		}
	}
	return until(time.Minute, "all nodes see all", func() bool {
		for _, p := range all {
			up := 0
			for _, l := range p.mesh.Live() {
				if l.Reachable {
					up++
				}
			}
			if up < len(all)-1 {
				return false
			}
		}
		return true
	})
}

// drain reads SIP flows as the SIP library would.
func drain(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
}
