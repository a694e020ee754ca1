package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tapEvery is how often what the kernel has noted is fetched: seldom, so that looking
	// costs nothing where it would be measured.
	tapEvery = 50 * time.Millisecond
	// tapBuffer holds what comes meanwhile, in bytes.
	tapBuffer = 8 << 20
	// rtpEnd is how much of a packet is looked at: Ethernet, IPv6, UDP and RTP headers.
	rtpEnd = 14 + 40 + 8 + 12
)

// passed is when the last packet of one frame came by.
type passed struct {
	Port  uint16 // where it goes to
	Stamp uint32 // of RTP
	At    int64  // by the kernel's clock, ns since 1970
}

// tap notes when the frames of one payload type arrive at an interface, until its standard
// input ends, and prints them. The time is the kernel's own (SO_TIMESTAMPNS, socket(7)), taken
// when the interface receives: whoever the packet is for has not run yet. What is encrypted
// shows enough: SRTP leaves the RTP header as it is (RFC 3711 section 3.1).
func tap(device, payload string) error {
	pt, err := strconv.ParseUint(payload, 10, 7)
	if err != nil {
		return err
	}
	fd, err := openTap(device)
	if err != nil {
		return fmt.Errorf("%s cannot be listened to: %w", device, err)
	}
	defer func() { _ = unix.Close(fd) }()
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	fmt.Println("listening")
	frames := map[[2]uint32]int64{}
	for ended := false; !ended; {
		select {
		case <-stop:
			ended = true
		case <-time.After(tapEvery):
		}
		if err := drain(fd, byte(pt), frames); err != nil {
			return err
		}
	}
	out := make([]passed, 0, len(frames))
	for k, at := range frames {
		out = append(out, passed{uint16(k[0]), k[1], at}) //nolint:gosec // a port
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// openTap listens to all that an interface receives (packet(7)).
func openTap(device string) (int, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return 0, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	if err != nil {
		_ = unix.Close(fd)
	}
	return fd, err
}

// drain takes what the kernel has noted. A frame counts from its last packet.
func drain(fd int, pt byte, frames map[[2]uint32]int64) error {
	b, oob := make([]byte, rtpEnd), make([]byte, 128)
	for {
		n, m, _, from, err := unix.Recvmsg(fd, b, oob, 0)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || ll.Pkttype != unix.PACKET_HOST { // what leaves is seen as well
			continue
		}
		port, stamp, ok := rtpHeader(b[:n], pt)
		if !ok {
			continue
		}
		at, err := kernelTime(oob[:m])
		if err != nil {
			return err
		}
		k := [2]uint32{uint32(port), stamp}
		frames[k] = max(frames[k], at)
	}
}

// rtpHeader finds the port and the time stamp of a packet of RTP. A train of datagrams, which
// the kernel cuts for its receiver, has those of its first.
func rtpHeader(b []byte, pt byte) (port uint16, stamp uint32, ok bool) {
	if len(b) < 14+20 {
		return 0, 0, false
	}
	ip := b[14:]
	var udp int
	switch {
	case ip[0]>>4 == 4 && ip[9] == unix.IPPROTO_UDP:
		udp = int(ip[0]&15) * 4
	case ip[0]>>4 == 6 && ip[6] == unix.IPPROTO_UDP:
		udp = 40
	default:
		return 0, 0, false
	}
	if len(ip) < udp+8+12 {
		return 0, 0, false
	}
	r := ip[udp+8:]
	if r[0]>>6 != 2 || r[1]&0x7f != pt {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(ip[udp+2:]), binary.BigEndian.Uint32(r[4:]), true
}

// kernelTime is the time stamp beside a packet.
func kernelTime(oob []byte) (int64, error) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, err
	}
	for _, m := range all {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return int64(sec)*1e9 + int64(nsec), nil //nolint:gosec // until 2262
		}
	}
	return 0, errors.New("the kernel gave no time with a packet")
}
