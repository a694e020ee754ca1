package media

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/pion/rtp"
)

// Filter keeps a program running that makes RTP of what is written to it, as pipelines are
// kept: in a process group of its own, started again with a growing pause when it ends or
// falls silent, given up with a sentence that holds its last words.
type Filter struct {
	// Command is what to run: it reads standard input and sends its packets, under the SSRC,
	// to the port of loopback.
	Command func(port int, ssrc uint32) []string
	// Feed writes to one child until ctx ends or a write fails. Each child knows nothing of what
	// the one before was given.
	Feed func(ctx context.Context, to io.Writer)
	Out  func(*rtp.Packet) // takes a packet of the newest child; called from one goroutine
	Log  *slog.Logger
}

// Run returns nil after ctx, else the sentence why the program was given up.
func (f *Filter) Run(ctx context.Context) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	var packets atomic.Int64
	var child atomic.Uint32
	var wg sync.WaitGroup
	wg.Go(func() { f.read(conn, &child, &packets) })
	defer wg.Wait()
	defer func() { _ = conn.Close() }()
	port := conn.LocalAddr().(*net.UDPAddr).Port
	return supervisor{
		command: func() []string { return f.Command(port, child.Add(1)) },
		feed:    func(ctx context.Context, to io.WriteCloser) { f.Feed(ctx, to) },
		packets: &packets, patience: usual(), log: f.Log,
	}.run(ctx)
}

func (f *Filter) read(conn *net.UDPConn, child *atomic.Uint32, packets *atomic.Int64) {
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		p := &rtp.Packet{}
		if p.Unmarshal(append([]byte(nil), buf[:n]...)) != nil || p.SSRC != child.Load() {
			continue
		}
		packets.Add(1)
		f.Out(p)
	}
}
