// Command member is a hostile member for the tests: it holds the key of a device that was
// really admitted (its data folder), and speaks the protocols of the member port by hand.
//
// With -mode attack it does to the named targets what a member must not be able to do; with
// -mode stolen it and an accomplice use each other's SIP branches; with -mode removed it goes on as a device that was removed, or that
// was not admitted yet, would, and prints what it is given, one JSON object a line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	mode := flag.String("mode", "attack", "attack, stolen or removed")
	data := flag.String("data", "", "data folder of the admitted device")
	second := flag.String("second", "", "data folder of another admitted device, for what takes two")
	targets := flag.String("targets", "", "comma-separated addresses of the other nodes, without port")
	to := flag.String("to", "", "stolen: name of the device at the target")
	length := flag.Duration("for", 20*time.Second, "how long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	if err := run(ctx, *mode, *data, *second, *to, strings.Split(*targets, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, mode, data, second, to string, targets []string) error {
	me, err := load(data)
	if err != nil {
		return err
	}
	if mode == "removed" {
		return removed(ctx, me, targets)
	}
	if !me.roster.Has(me.id) {
		return errors.New("this data folder belongs to no member")
	}
	if mode == "attack" {
		return attack(ctx, me, targets)
	}
	other, err := load(second)
	if err != nil {
		return err
	}
	return stolen(ctx, me, other, targets[0], to)
}
