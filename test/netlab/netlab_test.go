package netlab

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHostsReachEachOtherAndNothingElse(t *testing.T) {
	l := For(t)
	a, b := l.MustHost(t, "a"), l.MustHost(t, "b")
	dial := func(target string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return a.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+target+"/80").Run()
	}
	refused := func(target string) bool { // an answer, if only a reset, means reached
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		out, _ := a.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+target+"/80").CombinedOutput()
		return strings.Contains(string(out), "refused")
	}
	for _, ip := range []string{b.IPv4, b.IPv6} {
		if !refused(ip) {
			t.Errorf("%s does not answer at once", ip)
		}
	}
	if err := b.Down(); err != nil {
		t.Fatal(err)
	}
	if dial(b.IPv4) == nil || refused(b.IPv4) {
		t.Error("a host without its cable answers")
	}
	if err := b.Up(); err != nil {
		t.Fatal(err)
	}
	if !refused(b.IPv6) {
		t.Error("a host whose cable is back does not answer")
	}
	out, err := a.Command(t.Context(), "ip", "-o", "link").Output()
	if err != nil || strings.Count(string(out), "\n") != 2 {
		t.Errorf("a host should have lo and eth0 only: %s %v", out, err)
	}
}

func TestCloseEndsProcessesAndSweepRemovesTheDead(t *testing.T) {
	l := For(t)
	h := l.MustHost(t, "a")
	cmd := h.Command(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	end(h.NS)
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the program goes on")
	}

	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	name := prefix + "-" + strconv.Itoa(dead.Process.Pid) + "-x"
	if err := ip("netns", "add", name); err != nil {
		t.Fatal(err)
	}
	sweep()
	if _, err := os.Stat("/var/run/netns/" + name); err == nil {
		t.Error("the namespace of a dead process is still there")
	}
	if _, err := os.Stat("/var/run/netns/" + h.NS); err != nil {
		t.Error("the namespace of a living process was swept")
	}
}
