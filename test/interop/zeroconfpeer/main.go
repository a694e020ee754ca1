// Command zeroconfpeer is a grandcat/zeroconf program, as its users write them: it
// registers a camera and prints the Hallway nodes that it finds, until SIGTERM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/grandcat/zeroconf"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	server, err := zeroconf.Register("Porch camera", "_rtsp._tcp", "local.", 8554, []string{"path=/live"}, nil)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	resolver, err := zeroconf.NewResolver()
	if err != nil {
		return err
	}
	found := make(chan *zeroconf.ServiceEntry, 16)
	if err := resolver.Browse(ctx, "_hallway._tcp", "local.", found); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-found:
			if !ok {
				return nil
			}
			fmt.Println(e.Instance, e.Port, e.Text, e.AddrIPv4)
		}
	}
}
