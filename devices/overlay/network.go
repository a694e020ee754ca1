package overlay

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Network is what the member port stands on.
type Network interface {
	// Listen takes a port; addr is host:port, the host may be empty.
	Listen(addr string) (net.Listener, error)
	// Dial connects to a member port; ctx bounds it.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// tcpNetwork is the TCP of this host.
type tcpNetwork struct{}

// Listen takes a TCP port.
func (tcpNetwork) Listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return tunedListener{ln}, nil
}

// Dial connects by TCP.
func (tcpNetwork) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	return tune(c), nil
}

type tunedListener struct{ net.Listener }

// Accept returns the next connection, tuned as a dialled one is.
func (l tunedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tune(c), nil
}

// tune makes the kernel notice in 2 to 3 s that what was sent does not arrive, and send
// small messages at once. The kernel's own probes are off: overlay flows ping all the time,
// and a SIP flow ends with the overlay flow beside it. Probes on both would more than
// double the bytes of 64 idle nodes.
func tune(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{})
	q, err := newQuietConn(tcp)
	if err != nil {
		return c // closed already; whoever uses it is told
	}
	_ = q.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2500)
	})
	return q
}
