package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	alpnOverlay = "hallway-overlay/1"
	alpnSIP     = "sip"
	memberPort  = "5061"
)

// identity is a device: its key and what it knew when its store was closed.
type identity struct {
	key    *ecdsa.PrivateKey
	id     devices.NodeID
	roster *devices.Roster
	edits  []trust.SignedEdit
	cert   tls.Certificate
}

func load(data string) (*identity, error) {
	s, err := devices.OpenStore(data, devices.StoreOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	key, err := devices.NodeKey(s)
	if err != nil {
		return nil, err
	}
	log, err := trust.OpenLog(s)
	if err != nil {
		return nil, err
	}
	cert, err := trust.NodeCertificate(key)
	if err != nil {
		return nil, err
	}
	me := &identity{key: key, id: devices.NodeIDOf(&key.PublicKey), roster: log.Roster(), edits: log.Edits(), cert: cert}
	if me.roster == nil { // it belongs to no home yet
		me.roster = &devices.Roster{}
	}
	return me, nil
}

func (me *identity) slug() string   { return me.roster.Members[me.id].Slug }
func (me *identity) domain() string { return me.roster.Home.Domain() }

// others lists the other members.
func (me *identity) others() []devices.Member {
	var out []devices.Member
	for id, m := range me.roster.Members {
		if id != me.id {
			out = append(out, m)
		}
	}
	return out
}

// dial opens a flow and reads the verdict; whoever answers is believed.
func (me *identity) dial(ctx context.Context, target, alpn string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(target, memberPort))
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{me.cert}, NextProtos: []string{alpn},
		InsecureSkipVerify: true, //nolint:gosec // a hostile program trusts whom it attacks
	})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	var verdict [1]byte
	if _, err := io.ReadFull(c, verdict[:]); err != nil || verdict[0] != 'y' {
		_ = raw.Close()
		return nil, fmt.Errorf("refused: %q %w", verdict[0], err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// pause waits, unless it is over.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
