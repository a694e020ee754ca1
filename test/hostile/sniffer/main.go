// Command sniffer is a neighbour who listens to a whole LAN, for the tests: it keeps every frame that a
// bridge passes on, in a file, until its standard input ends. Each frame has its length before it,
// 32 bit, big endian. It says "listening" once it does, and exits with an error if the kernel lost a frame.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const buffer = 64 << 20

func main() {
	device := flag.String("device", "", "the bridge")
	file := flag.String("file", "", "where frames are kept")
	flag.Parse()
	if err := run(*device, *file); err != nil {
		fmt.Fprintln(os.Stderr, "sniffer:", err)
		os.Exit(1)
	}
}

func run(device, file string) error {
	fd, err := listen(device)
	if err != nil {
		return fmt.Errorf("%s cannot be listened to: %w", device, err)
	}
	defer func() { _ = unix.Close(fd) }()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	fmt.Println("listening")
	for ended := false; !ended; {
		select {
		case <-stop:
			ended = true
		case <-time.After(5 * time.Millisecond):
		}
		if err := keep(fd, w); err != nil {
			return err
		}
	}
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && stats.Drops > 0 {
		err = fmt.Errorf("%d frames were lost", stats.Drops)
	}
	return errors.Join(err, w.Flush(), out.Close())
}

// listen takes all that the device passes on, whoever it is for (packet(7)).
func listen(device string) (int, error) {
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
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC})) //nolint:gosec // an interface's number is small
	if err != nil {
		_ = unix.Close(fd)
	}
	return fd, err
}

// keep writes what the kernel has noted.
func keep(fd int, w io.Writer) error {
	b := make([]byte, 4+1<<17)
	for {
		n, _, err := unix.Recvfrom(fd, b[4:], 0)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint32(b, uint32(n)) //nolint:gosec // a frame's length
		if _, err := w.Write(b[:4+n]); err != nil {
			return err
		}
	}
}
