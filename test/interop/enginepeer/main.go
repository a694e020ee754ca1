// Command enginepeer runs our mDNS engine for the interoperability tests: it announces
// one node and prints what it sees, one JSON object a line, and the name in use ("own
// TV (2)") whenever that changes, until SIGTERM. A line on standard input replaces the
// node's TXT record. Arguments: the interfaces (none means all usable ones).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/mdns"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	id := flag.String("id", "1a", "first byte of the Node-ID")
	name := flag.String("name", "", "name shown on the LAN")
	share := flag.String("share", "", "host name to share")
	extra := flag.Int("services", 0, "further services, called Ours 1, 2, ...")
	quiet := flag.Bool("quiet", false, "announce nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	node := devices.NodeID{0x1a, 0x2b, 0x3c, 0x4d}
	n, err := strconv.ParseUint(*id, 16, 8)
	if err != nil {
		return err
	}
	node[0] = byte(n)
	e := mdns.New(mdns.Config{Interfaces: flag.Args(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	e.Browse(append([]string{discovery.Type}, discovery.ForeignTypes()...)...)
	service := mdns.ServiceOf(discovery.Announcement{Class: devices.ClassTV, Node: node, Version: "0.1", Port: 5061, Name: *name})
	var out sync.Mutex
	if !*quiet {
		reg := e.Announce(service)
		go follow(reg, service, &out)
	}
	for i := range *extra {
		e.Announce(mdns.Service{Instance: fmt.Sprint("Ours ", i+1), Type: "_rtsp._tcp", Host: service.Host, Port: 554, Text: []string{"path=/h264"}})
	}
	if *share != "" {
		e.ShareHost(*share)
	}
	lines := json.NewEncoder(os.Stdout)
	return e.Run(ctx, func(s discovery.Sighting) {
		out.Lock()
		defer out.Unlock()
		_ = lines.Encode(s)
	})
}

// follow prints the name in use and takes new TXT records, until the program ends.
func follow(reg *mdns.Registration, s mdns.Service, out *sync.Mutex) {
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			s.Text = strings.Fields(in.Text())
			reg.Update(s)
		}
	}()
	for last := ""; ; time.Sleep(20 * time.Millisecond) {
		if now := reg.Instance(); now != last {
			last = now
			out.Lock()
			fmt.Println("own", now)
			out.Unlock()
		}
	}
}
