// Command askpeer asks for a host name from a given source address, by multicast and
// directly, as an mDNS responder (port 5353) and as a plain resolver, and prints how many
// packets came back to that address. Arguments: source, interface, host name, addresses to
// ask directly.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// listen: answers to shared records wait at most 120 ms.
const listen = 400 * time.Millisecond

func main() {
	n, err := run(net.ParseIP(os.Args[1]), os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n, "answers")
}

func run(source net.IP, iface, name string, direct []string) (int, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, err
	}
	var targets []*net.UDPAddr
	for _, d := range append(direct, "224.0.0.251", "ff02::fb") {
		if a := net.ParseIP(d); (a.To4() == nil) == (source.To4() == nil) {
			targets = append(targets, &net.UDPAddr{IP: a, Port: 5353, Zone: zone(a, iface)})
		}
	}
	got := 0
	for _, port := range []int{5353, 0} {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: source, Port: port})
		if err != nil {
			return 0, err
		}
		if source.To4() != nil {
			err = ipv4.NewPacketConn(c).SetMulticastInterface(i)
		} else {
			err = ipv6.NewPacketConn(c).SetMulticastInterface(i)
		}
		for _, to := range targets {
			for _, class := range []uint16{dns.ClassINET, dns.ClassINET | 1<<15} {
				m := dns.Msg{Question: []dns.Question{{Name: dns.Fqdn(name), Qtype: dns.TypeANY, Qclass: class}}}
				b, packErr := m.Pack()
				_, sendErr := c.WriteToUDP(b, to)
				err = errors.Join(err, packErr, sendErr)
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(listen))
		for buf := make([]byte, 9000); ; got++ {
			if _, _, err := c.ReadFromUDP(buf); err != nil {
				break
			}
		}
		if err = errors.Join(err, c.Close()); err != nil {
			return got, err
		}
	}
	return got, nil
}

func zone(a net.IP, iface string) string {
	if a.IsLinkLocalMulticast() && a.To4() == nil {
		return iface
	}
	return ""
}
