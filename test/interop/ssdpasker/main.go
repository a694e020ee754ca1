// Command ssdpasker is a control point that asks too much: it sends many searches for
// everything, at once, from one address, and prints how many bytes it sent and how many
// came back. Arguments: its own address, how many searches, how long to listen.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

const query = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n"

func run(own string, count int, listen time.Duration) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(own)})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the end of the program
	group := &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900}
	for range count {
		if _, err := c.WriteToUDP([]byte(query), group); err != nil {
			return err
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(listen)); err != nil {
		return err
	}
	got, buf := 0, make([]byte, 65536)
	for {
		n, _, err := c.ReadFromUDP(buf)
		if err != nil {
			break // the time is up
		}
		got += n
	}
	fmt.Printf("sent %d got %d\n", count*len(query), got)
	return nil
}

func main() {
	count, err := strconv.Atoi(os.Args[2])
	if err == nil {
		var d time.Duration
		if d, err = time.ParseDuration(os.Args[3]); err == nil {
			err = run(os.Args[1], count, d)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
