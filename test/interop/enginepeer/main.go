// Command enginepeer runs our mDNS engine for the interoperability tests: it announces
// one node and prints what it sees, one JSON object a line, until SIGTERM. Arguments: the
// first byte of its Node-ID, then the interfaces (none means all usable ones).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/mdns"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	id, cfg := devices.NodeID{0x1a, 0x2b, 0x3c, 0x4d}, mdns.Config{}
	if len(os.Args) > 1 {
		n, err := strconv.ParseUint(os.Args[1], 16, 8)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		id[0], cfg.Interfaces = byte(n), os.Args[2:]
	}
	e := mdns.New(cfg)
	e.Browse(append([]string{discovery.Type}, discovery.ForeignTypes()...)...)
	e.Announce(mdns.ServiceOf(discovery.Announcement{
		Class: devices.ClassTV, Node: id, Version: "0.1", Port: 5061,
	}))
	out := json.NewEncoder(os.Stdout)
	if err := e.Run(ctx, func(s discovery.Sighting) { _ = out.Encode(s) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
