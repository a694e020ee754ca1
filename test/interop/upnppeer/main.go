// Command upnppeer runs our SSDP and WS-Discovery for the interoperability tests: it
// announces one node and prints what it sees, one JSON object a line, until SIGTERM. With
// -list it prints the merged list of things at every change instead. Further arguments are
// the interfaces (none means all usable ones).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/ssdp"
	"github.com/hallway-home/hallway/discovery/wsd"
)

func main() {
	first := flag.String("id", "1a", "first byte of the Node-ID, in hexadecimal")
	list := flag.Bool("list", false, "print the merged list")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	n, err := strconv.ParseUint(*first, 16, 8)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2) //nolint:gocritic // nothing was begun
	}
	id := devices.NodeID{byte(n), 0x2b, 0x3c, 0x4d}
	up := ssdp.New(ssdp.Config{Interfaces: flag.Args()})
	up.Announce(&ssdp.Device{UUID: discovery.UUID(id), Name: "Hallway-" + id.Short(), Presentation: "https://hallway-00112233.local:8443/"})
	tracker, out := discovery.NewTracker(), json.NewEncoder(os.Stdout)
	sightings := make(chan discovery.Sighting)
	report := func(s discovery.Sighting) {
		select {
		case sightings <- s:
		case <-ctx.Done():
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return up.Run(gctx, report) })
	g.Go(func() error { return wsd.New(wsd.Config{Interfaces: flag.Args()}).Run(gctx, report) })
	g.Go(func() error {
		for {
			select {
			case <-gctx.Done():
				return nil
			case s := <-sightings:
				if !*list {
					_ = out.Encode(s)
				} else if tracker.Take(s) {
					_ = out.Encode(tracker.Foreign(func([8]byte) bool { return false }))
				}
			}
		}
	})
	if err := g.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
