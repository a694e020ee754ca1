// Command mitm is a hostile neighbour for the pairing tests: it stands between an owner
// and a new device with a key of its own and relays what they say, or repeats later what
// it heard.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

func main() {
	listen := flag.String("listen", "", "relay: address for the owner")
	target := flag.String("target", "", "the new device")
	tape := flag.String("tape", "", "file with what the owner said")
	flag.Parse()
	run := replay
	if *listen != "" {
		run = func(conf *tls.Config, target, tape string) error { return relay(conf, *listen, target, tape) }
	}
	conf, err := config()
	if err == nil {
		err = run(conf, *target, *tape)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func config() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return trust.MemberTLS(key, func() *devices.Roster { return nil }, trust.ALPNPair)
}

// relay passes every byte on, in both directions, for one connection.
func relay(conf *tls.Config, listen, target, tape string) error {
	ln, err := tls.Listen("tcp", listen, conf)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	owner, err := ln.Accept()
	if err != nil {
		return err
	}
	device, err := tls.Dial("tcp", target, conf)
	if err != nil {
		return err
	}
	f, err := os.Create(tape)
	if err != nil {
		return err
	}
	both := make(chan error, 2)
	go func() { both <- pass(device, io.TeeReader(owner, f)) }()
	go func() { both <- pass(owner, device) }()
	return errors.Join(<-both, f.Close())
}

func pass(to net.Conn, from io.Reader) error {
	_, err := io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// replay says again what the owner said and prints how the device ends it.
func replay(conf *tls.Config, target, tape string) error {
	said, err := os.ReadFile(tape)
	if err != nil {
		return err
	}
	c, err := tls.Dial("tcp", target, conf)
	if err != nil {
		return err
	}
	said = firstTwo(said) // hello and share; the third was the owner's refusal
	if _, err := c.Write(said); err != nil {
		return err
	}
	confirm := []byte("\x00\x00\x00\x2d\xa2\x01\x67confirm\x06\x58\x20" + string(make([]byte, 32)))
	if _, err := c.Write(confirm); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, _ := io.ReadAll(c)
	fmt.Printf("%d bytes said again; the device answered %q\n", len(said), answer)
	return nil
}

// firstTwo cuts a tape after two messages, each with its length before it.
func firstTwo(tape []byte) []byte {
	n := 0
	for range 2 {
		if n+4 > len(tape) {
			break
		}
		n += 4 + int(binary.BigEndian.Uint32(tape[n:]))
	}
	return tape[:min(n, len(tape))]
}
