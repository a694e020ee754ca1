package rtc

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5/stdnet"
)

// socketBuffer takes the burst of a key frame while the machine is busy.
const socketBuffer = 1 << 20

// port is the one UDP port that all legs of this node share, a socket for each of the
// node's addresses, so that answers leave from where they were asked. It is open while a
// leg uses it and looks at the interfaces anew for each leg. Safe for concurrent use.
type port struct {
	number     uint16 // 0: the kernel chooses
	interfaces []string
	log        logging.LeveledLogger

	mu    sync.Mutex
	users int
	muxes map[netip.Addr]*ice.UDPMuxDefault
	raws  map[*ice.UDPMuxDefault]*net.UDPConn // their sockets
}

// acquire keeps the port open until release was called as often.
func (p *port) acquire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
}

func (p *port) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users == 0 {
		_ = p.closeLocked()
	}
}

// Close closes the sockets, whoever uses them.
func (p *port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closeLocked()
}

func (p *port) closeLocked() error {
	var errs []error
	for _, m := range p.muxes {
		errs = append(errs, m.Close())
	}
	p.muxes, p.raws = nil, nil
	return errors.Join(errs...)
}

// GetListenAddresses implements ice.UDPMux: one candidate for each usable address.
func (p *port) GetListenAddresses() []net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 {
		return nil
	}
	var out []net.Addr
	now, err := p.addresses()
	if err != nil { // no descriptor is left to ask with: a running call keeps its sockets
		now = slices.Collect(maps.Keys(p.muxes))
	}
	for a, m := range p.muxes {
		if !slices.Contains(now, a) { // another address came in its place
			_ = m.Close()
			delete(p.muxes, a)
			delete(p.raws, m)
		}
	}
	for _, a := range now {
		m := p.muxes[a]
		if m == nil {
			m = p.open(a)
		}
		if m != nil {
			out = append(out, m.LocalAddr())
		}
	}
	return out
}

// open listens on one address, on the same number as the others where it is free.
func (p *port) open(a netip.Addr) *ice.UDPMuxDefault {
	want := p.number
	for _, m := range p.muxes {
		if u, ok := m.LocalAddr().(*net.UDPAddr); ok {
			want = u.AddrPort().Port()
			break
		}
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, want)))
	if err != nil && p.number == 0 {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	}
	if err != nil {
		return nil // the other addresses may do; without any the leg says so
	}
	_, _ = conn.SetReadBuffer(socketBuffer), conn.SetWriteBuffer(socketBuffer)
	network, err := stdnet.NewNet()
	if err != nil {
		_ = conn.Close()
		return nil
	}
	packets, err := newQuietConn(conn, a)
	if err != nil {
		_ = conn.Close()
		return nil
	}
	m := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: packets, Net: network, Logger: p.log})
	if p.muxes == nil {
		p.muxes, p.raws = map[netip.Addr]*ice.UDPMuxDefault{}, map[*ice.UDPMuxDefault]*net.UDPConn{}
	}
	p.muxes[a], p.raws[m] = m, conn
	return m
}

// conn is the part of a socket that one leg's ICE reads and writes, and the socket.
func (p *port) conn(ufrag string, addr net.Addr) (net.PacketConn, *net.UDPConn, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil, nil, errNoAddress
	}
	p.mu.Lock()
	m := p.muxes[u.AddrPort().Addr().Unmap()]
	raw := p.raws[m]
	p.mu.Unlock()
	if m == nil {
		return nil, nil, errNoAddress
	}
	c, err := m.GetConn(ufrag, addr)
	return c, raw, err
}

var errNoAddress = errors.New("the address is not one of this node's")

// RemoveConnByUfrag implements ice.UDPMux.
func (p *port) RemoveConnByUfrag(ufrag string) {
	p.mu.Lock()
	all := make([]*ice.UDPMuxDefault, 0, len(p.muxes))
	for _, m := range p.muxes {
		all = append(all, m)
	}
	p.mu.Unlock()
	for _, m := range all {
		m.RemoveConnByUfrag(ufrag)
	}
}

// linkLocal lists the sockets on link-local IPv6 addresses.
func (p *port) linkLocal() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []netip.AddrPort
	for a, m := range p.muxes {
		if u, ok := m.LocalAddr().(*net.UDPAddr); ok && a.Zone() != "" {
			out = append(out, netip.AddrPortFrom(a.WithZone(""), u.AddrPort().Port()))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// addresses of the interfaces that may carry media; loopback is used only when named.
func (p *port) addresses() ([]netip.Addr, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, i := range all {
		named := slices.Contains(p.interfaces, i.Name)
		if i.Flags&net.FlagUp == 0 || len(p.interfaces) > 0 && !named || i.Flags&net.FlagLoopback != 0 && !named {
			continue
		}
		addrs, err := i.Addrs()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, err
		}
		if err != nil {
			continue // it went meanwhile
		}
		for _, x := range addrs {
			n, err := netip.ParsePrefix(x.String())
			if err != nil {
				continue
			}
			a := n.Addr().Unmap()
			if a.Is6() && a.IsLinkLocalUnicast() {
				a = a.WithZone(i.Name)
			}
			out = append(out, a)
		}
	}
	return out, nil
}
