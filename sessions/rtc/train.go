package rtc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pion/ice/v4"
	"golang.org/x/sys/unix"
)

const (
	// trainBytes is the largest datagram the kernel can be given to cut (RFC 768 less
	// headers), trainCars the most it cuts it into (UDP_MAX_SEGMENTS before Linux 6.9).
	trainBytes, trainCars = 65507, 64
	// maxTrains of one node may stand ready or be under way; the kernel takes one after the
	// other from a socket anyway, and each has 64 kB.
	maxTrains = 8
)

// train gathers the datagrams of one leg that leave together, and hands them to the kernel
// in one call (UDP_SEGMENT, udp(7), Linux 4.18): a quarter of the cost of one call each.
// Everything else of ICE, DTLS and SRTP is as without. Safe for concurrent use.
type train struct {
	yard  *yard
	mu    sync.Mutex
	open  bool
	conn  *trainConn
	to    netip.AddrPort
	buf   *[trainBytes]byte // of the yard; nil while nothing is gathered
	n     int               // bytes
	cars  int
	size  int  // of all but the last
	short bool // the last is there
	oob   [64]byte
}

// yard lends buffers to the trains of a node: a leg keeps none while it sends nothing.
type yard struct {
	mu   sync.Mutex
	made int
	free chan *[trainBytes]byte
}

func newYard() *yard { return &yard{free: make(chan *[trainBytes]byte, maxTrains)} }

// get waits for a buffer while all are under way.
func (y *yard) get() *[trainBytes]byte {
	select {
	case b := <-y.free:
		return b
	default:
	}
	y.mu.Lock()
	more := y.made < maxTrains
	if more {
		y.made++
	}
	y.mu.Unlock()
	if more {
		return new([trainBytes]byte)
	}
	return <-y.free
}

func (y *yard) put(b *[trainBytes]byte) { y.free <- b }

// gather keeps datagrams back until leave.
func (t *train) gather() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = true
}

// leave sends what was gathered.
func (t *train) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flush()
	t.open = false
	if t.buf != nil {
		t.yard.put(t.buf)
		t.buf = nil
	}
}

// board takes a datagram, if datagrams are gathered now.
func (t *train) board(c *trainConn, b []byte, to netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.open || c.cannot.Load() {
		return false
	}
	if t.cars > 0 && (t.conn != c || t.to != to || t.short || len(b) > t.size || t.cars == trainCars || t.n+len(b) > trainBytes) {
		t.flush()
	}
	if t.buf == nil {
		t.buf = t.yard.get()
	}
	if t.cars == 0 {
		t.conn, t.to, t.size = c, to, len(b)
	}
	t.short = len(b) < t.size
	t.n += copy(t.buf[t.n:], b)
	t.cars++
	return true
}

// flush sends; mu is held. A datagram that cannot leave is lost, as on the wire: consent
// (RFC 7675) notices a path that is gone.
func (t *train) flush() {
	c, b, cars := t.conn, []byte(nil), t.cars
	if cars > 0 {
		b = t.buf[:t.n]
	}
	t.conn, t.n, t.cars, t.short = nil, 0, 0, false
	if cars > 1 {
		if _, _, err := c.raw.WriteMsgUDPAddrPort(b, t.segments(t.size), t.to); err == nil {
			return
		}
		c.cannot.Store(true) // this kernel, this interface or this path does not cut
	}
	for len(b) > 0 {
		n := min(t.size, len(b))
		_, _ = c.through.WriteToAddrPort(b[:n], t.to)
		b = b[n:]
	}
}

// segments is the control message (cmsg(3)) that tells the kernel where to cut.
func (t *train) segments(size int) []byte {
	oob := t.oob[:unix.CmsgSpace(2)]
	word := unix.CmsgLen(0) - 8 // cmsg_len is a size_t
	if word == 8 {
		binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2))) //nolint:gosec // 18
	} else {
		binary.NativeEndian.PutUint32(oob, uint32(unix.CmsgLen(2))) //nolint:gosec // 14
	}
	binary.NativeEndian.PutUint32(oob[word:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[word+4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[word+8:], uint16(size)) //nolint:gosec // below trainBytes
	return oob
}

// trainConn is one leg's view of one socket of the port.
type trainConn struct {
	net.PacketConn
	through ice.AddrPortReaderWriter // PacketConn, without allocations
	raw     *net.UDPConn
	train   *train
	cannot  atomic.Bool // send trains
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (c *trainConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.through.ReadFromAddrPort(b)
}

// WriteToAddrPort implements ice.AddrPortReaderWriter. RTP and RTCP (RFC 7983 section 7) may
// wait for the rest of their train.
func (c *trainConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if len(b) > 0 && b[0] >= 128 && b[0] < 192 && c.train.board(c, b, to) {
		return len(b), nil
	}
	return c.through.WriteToAddrPort(b, to)
}

// trainPort is one leg's view of the port.
type trainPort struct {
	*port
	train *train
}

// GetConn implements ice.UDPMux.
func (p trainPort) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	conn, raw, err := p.conn(ufrag, addr)
	if err != nil {
		return nil, err
	}
	through, ok := conn.(ice.AddrPortReaderWriter)
	if !ok || raw == nil {
		return conn, nil
	}
	return &trainConn{PacketConn: conn, through: through, raw: raw, train: p.train}, nil
}
