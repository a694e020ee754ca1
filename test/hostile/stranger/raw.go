package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// datagram is a UDP packet with a source of one's own choosing.
type datagram struct {
	src, dst netip.AddrPort
	ttl      byte
	data     []byte
}

// rawSocket sends IPv4 packets with headers of its own (raw(7), IP_HDRINCL).
type rawSocket struct{ fd int }

func newRawSocket() (*rawSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	return &rawSocket{fd}, err
}

func (r *rawSocket) send(d datagram) error {
	return unix.Sendto(r.fd, d.packet(), 0, &unix.SockaddrInet4{Addr: d.dst.Addr().As4()})
}

// packet writes the headers of RFC 791 and RFC 768; the kernel fills in the IP checksum,
// and UDP over IPv4 may go without one.
func (d datagram) packet() []byte {
	b := make([]byte, 28, 28+len(d.data))
	b[0], b[8], b[9] = 0x45, d.ttl, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(d.data)))
	src, dst := d.src.Addr().As4(), d.dst.Addr().As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[20:], d.src.Port())
	binary.BigEndian.PutUint16(b[22:], d.dst.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(d.data)))
	return append(b, d.data...)
}
