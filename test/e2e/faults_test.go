package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// upFails runs an agent that cannot start, and returns its one sentence.
func upFails(t *testing.T, n *node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := n.host.Command(ctx, binary, append(append([]string{}, n.args...), args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err == nil || ctx.Err() != nil {
		t.Fatalf("the agent started: %v: %s", err, out.String())
	}
	said := strings.TrimSpace(out.String())
	if strings.Contains(said, "goroutine ") || strings.Count(said, "\n") > 6 {
		t.Errorf("that is no clear sentence: %s", said)
	}
	return said
}

func TestFaults_WrongConfigurationNamesTheLine(t *testing.T) {
	n := newNode(t, newLab(t), "TV", "tv", "")
	file := filepath.Join(t.TempDir(), "hallway.yaml")
	if err := os.WriteFile(file, []byte("name: TV\ncolour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := upFails(t, n, "--config", file); !strings.Contains(said, file) || !strings.Contains(said, "[2:1]") {
		t.Errorf("%s", said)
	}
	if out, code := n.try("devices", "--config", file); code != 2 {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestFaults_TakenPort(t *testing.T) {
	n := newNode(t, newLab(t), "TV", "tv", "").start()
	second := *n
	second.args = append(append([]string{}, n.args...), "--data", t.TempDir())
	if said := upFails(t, &second); !strings.Contains(said, ":5061") || !strings.Contains(said, "--listen") {
		t.Errorf("%s", said)
	}
	if said := upFails(t, n); !strings.Contains(said, "already uses this data folder") {
		t.Errorf("%s", said)
	}
	if out, code := n.try("rooms"); code != 0 {
		t.Errorf("the first agent suffered: %s", out)
	}
}

func TestFaults_NoAgent(t *testing.T) {
	n := newNode(t, newLab(t), "TV", "tv", "")
	if out, code := n.try("devices"); code != 3 || !strings.Contains(out, "hallway up") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// A full disk at the start is one sentence; one that fills up later refuses the change,
// loses nothing, and the home goes on.
func TestFaults_FullDisk(t *testing.T) {
	l := newLab(t)
	tiny := t.TempDir()
	if err := syscall.Mount("tmpfs", tiny, "tmpfs", 0, "size=512k"); err != nil {
		missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(tiny, syscall.MNT_DETACH) })
	fill := filepath.Join(tiny, "fill")
	full := func(n int) {
		if err := os.WriteFile(fill, make([]byte, n), 0o600); err != nil && n < 512<<10 {
			t.Fatal(err)
		}
	}
	n := newNode(t, l, "TV", "tv", "Living room", "--data", filepath.Join(tiny, "data"))
	n.dir = filepath.Join(tiny, "data")
	full(510 << 10)
	if said := upFails(t, n); !strings.Contains(said, "disk is full") {
		t.Errorf("%s", said)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	n.start().found()
	_ = os.WriteFile(fill, make([]byte, 512<<10), 0o600) // as much as fits
	var out string
	failed := false
	for range 64 { // free pages of the store take the first ones
		var code int
		if out, code = n.try("home", "room", "Attic"); code != 0 {
			failed = true
			break
		}
	}
	if !failed || !strings.Contains(out, "disk is full") {
		t.Errorf("with a full disk: %v %s", failed, out)
	}
	if n.sees("tv") != "reachable" {
		t.Error("the home suffered")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	n.run("home", "room", "Cellar")
}

func TestFaults_MissingProgram(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-pipeline", "test-picture")
	empty := t.TempDir()
	real := os.Getenv("PATH")
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ip, filepath.Join(empty, "ip")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", empty) // the agent finds no ffmpeg
	token := ask[struct{ Token string }](tv, "invite").Token
	panel.start("--join", token)
	t.Setenv("PATH", real)
	tv.eventually(10*time.Second, "the panel joins", func() bool { return tv.sees("panel") == "reachable" })
	c := ask[call](tv, "call", "panel", "--detach")
	panel.incoming()
	panel.run("answer")
	tv.eventually(5*time.Second, "the call ends", func() bool { return tv.call(c.ID).State == "ended" })
	panel.eventually(5*time.Second, "it says why", func() bool {
		return strings.Contains(panel.call(c.ID).Reason, "ffmpeg is not installed")
	})
}

func TestFaults_LostInterface(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	panel := newNode(t, l, "Panel", "panel", "")
	tv.invite(panel)
	if err := panel.host.Down(); err != nil {
		t.Fatal(err)
	}
	took := tv.eventually(6*time.Second, "the panel shows as unreachable", func() bool { return tv.sees("panel") == "unreachable" })
	t.Logf("a pulled cable is known after %v", took.Round(time.Millisecond))
	if out, _ := panel.try("doctor"); !strings.Contains(out, "does not answer") {
		t.Errorf("the doctor says %s", out)
	}
	if err := panel.host.Up(); err != nil {
		t.Fatal(err)
	}
	took = tv.eventually(10*time.Second, "it is back", func() bool { return tv.sees("panel") == "reachable" })
	t.Logf("and is back after %v", took.Round(time.Millisecond))
}
