package overlay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// tcpPair is both ends of a connection: ours, and one of package net.
func tcpPair(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // served its purpose
	if theirs, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ours = tune(c)
	if _, ok := ours.(*quietConn); !ok {
		t.Fatalf("a tuned connection is a %T", ours)
	}
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

// More than the kernel's buffers hold goes both ways at once, unchanged.
func TestQuietConnCarriesMuch(t *testing.T) {
	ours, theirs := tcpPair(t)
	sent := make([]byte, 32<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	type result struct {
		got []byte
		err error
	}
	results := make(chan result, 2)
	for _, c := range []net.Conn{ours, theirs} {
		go func() {
			b := make([]byte, len(sent))
			_, err := io.ReadFull(c, b)
			results <- result{b, err}
		}()
		go func() {
			if n, err := c.Write(sent); err != nil || n != len(sent) {
				t.Errorf("%T wrote %d of %d: %v", c, n, len(sent), err)
			}
		}()
	}
	for range 2 {
		if r := <-results; r.err != nil || !bytes.Equal(r.got, sent) {
			t.Errorf("what arrived differs (%v)", r.err)
		}
	}
}

// Its errors are those that callers of package net look for.
func TestQuietConnErrors(t *testing.T) {
	b := make([]byte, 1)
	t.Run("deadline", func(t *testing.T) {
		ours, _ := tcpPair(t)
		_ = ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = ours.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := ours.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 64<<20 {
			t.Error(n, err)
		}
		_ = ours.SetDeadline(time.Time{})
	})
	t.Run("end", func(t *testing.T) {
		ours, theirs := tcpPair(t)
		_ = theirs.Close()
		if n, err := ours.Read(b); n != 0 || !errors.Is(err, io.EOF) {
			t.Error(n, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		ours, theirs := tcpPair(t)
		_ = theirs.(*net.TCPConn).SetLinger(0)
		_ = theirs.Close()
		if _, err := ours.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := ours.Write(b); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
	})
	t.Run("closed by ourselves while it reads", func(t *testing.T) {
		ours, _ := tcpPair(t)
		failed := make(chan error)
		go func() { _, err := ours.Read(b); failed <- err }()
		_ = ours.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := ours.Write(b); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestQuietConnAllocatesNothing(t *testing.T) {
	ours, theirs := tcpPair(t)
	b := make([]byte, 100)
	n := testing.AllocsPerRun(100, func() {
		_, _ = theirs.Write(b)
		_, _ = io.ReadFull(ours, b)
		_, _ = ours.Write(b)
		_, _ = io.ReadFull(theirs, b)
	})
	if n > 0 {
		t.Errorf("%v allocations for a ping and its answer", n)
	}
}
