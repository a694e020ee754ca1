package netlab

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMachineReachesHostsByUnicastAlone(t *testing.T) {
	l := For(t)
	s, err := l.FreeSegment()
	must(t, err)
	h := l.MustHostOn(t, s, "a", Both)
	m, err := l.Machine(s)
	must(t, err)
	defer func() {
		must(t, m.Close())
		if _, err := net.InterfaceByName(m.Iface); err == nil {
			t.Error("the cable is still there")
		}
	}()
	received := func() int {
		b, err := os.ReadFile("/sys/class/net/" + m.Iface + "/statistics/rx_packets")
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		must(t, err)
		return n
	}
	before := received()
	if _, err := net.DialTimeout("tcp", net.JoinHostPort(h.IPv4, "80"), 3*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a host answers the machine with %v", err)
	}
	reached := received()
	if reached == before {
		t.Error("nothing came over the cable")
	}
	for _, group := range []string{"224.0.0.251", "239.255.255.250", "ff02::fb%eth0"} {
		must(t, h.Command(t.Context(), "bash", "-c", "exec 3<>/dev/udp/"+group+"/5353; echo hello >&3").Run())
	}
	time.Sleep(100 * time.Millisecond)
	if n := received() - reached; n > 0 {
		t.Errorf("%d packets came over the cable, and nothing was for the machine", n)
	}
	i, err := net.InterfaceByName(m.Iface)
	must(t, err)
	addrs, err := i.Addrs()
	if err != nil || len(addrs) != 1 || i.Flags&net.FlagMulticast != 0 {
		t.Errorf("the machine's end has %v and flags %v", addrs, i.Flags)
	}

	// What is in use is not used twice.
	other := For(t)
	free, err := other.FreeSegment()
	must(t, err)
	if free.number == s.number {
		t.Error("two labs on the same addresses of the machine")
	}
}
