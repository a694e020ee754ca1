// Command outpeer prints the destination of every UDP packet that leaves an interface of
// its host from port 5353, one a line ("to 10.77.0.2"), and "ready" when it looks.
package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Fprintln(os.Stderr, run(os.Args[1]))
	os.Exit(1)
}

// run ends with an error only.
func run(iface string) error {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		return err
	}
	fmt.Println("ready")
	for buf := make([]byte, 9000); ; {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if l, ok := from.(*unix.SockaddrLinklayer); !ok || l.Pkttype != unix.PACKET_OUTGOING {
			continue
		}
		if to, port, ok := udp(buf[:n]); ok && port == 5353 {
			fmt.Println("to", to)
		}
	}
}

// udp reads the destination and the source port of an IP packet without extensions.
func udp(b []byte) (to netip.Addr, port int, ok bool) {
	header := 40
	switch {
	case len(b) >= 28 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP:
		header = int(b[0]&15) * 4
		to = netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		to = netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return to, 0, false
	}
	if len(b) < header+2 {
		return to, 0, false
	}
	return to, int(b[header])<<8 | int(b[header+1]), true
}
