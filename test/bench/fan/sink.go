package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
)

// sink is the child of an agent's sink pipeline: a screen that writes down what it would
// show. Each complete frame is a line of a file of its own in dir: when it was complete, when
// it left the camera (both in ns since 1970), its bytes, and 1 if it is a key frame.
func sink(dir, sdp string) error {
	port, err := videoPort(sdp)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadBuffer(1 << 20)
	f, err := os.Create(filepath.Join(dir, strconv.Itoa(os.Getpid())))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	out, v, bytes := bufio.NewWriter(f), &viewer{}, uint64(0)
	v.complete = func(key bool, left int64) {
		k := 0
		if key {
			k = 1
		}
		_, _ = fmt.Fprintf(out, "%d %d %d %d\n", time.Now().UnixNano(), left, v.bytes-bytes, k)
		bytes = v.bytes
		err = out.Flush()
	}
	for b := make([]byte, 2048); ; {
		n, readErr := conn.Read(b)
		if err := errors.Join(readErr, err); err != nil {
			return err
		}
		var p rtp.Packet
		if p.Unmarshal(b[:n]) == nil {
			v.WriteRTP("video", profiles.Codec{}, &p)
		}
	}
}

// videoPort is where the agent sends the picture.
func videoPort(sdp string) (int, error) {
	b, err := os.ReadFile(sdp)
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if w := strings.Fields(l); len(w) > 1 && w[0] == "m=video" {
			return strconv.Atoi(w[1])
		}
	}
	return 0, errors.New("the agent sends no picture")
}
