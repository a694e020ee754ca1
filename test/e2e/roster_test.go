package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

type homeState struct {
	Epoch   int
	Members []struct{ Slug, Role string }
}

func (h homeState) role(slug string) string {
	for _, m := range h.Members {
		if m.Slug == slug {
			return m.Role
		}
	}
	return ""
}

func (n *node) home() homeState { n.t.Helper(); return ask[homeState](n, "home", "show") }

// recovers types the code at the prompt; it never stands in a command line.
func (n *node) recovers(code string, args ...string) (string, int) {
	n.t.Helper()
	return n.types(code, "recover", args...)
}

func (n *node) types(code, command string, args ...string) (string, int) {
	n.t.Helper()
	cmd := exec.Command(binary, append([]string{"home", command, "--data", n.dir, "--json"}, args...)...)
	cmd.Stdin = strings.NewReader(code + "\n")
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// The only owner dies for good. A panel recovers the home with the code that was shown
// when it was born and removes the lost owner; every device agrees, and the lost owner, found
// again, is a stranger.
func TestA7_RosterIsRecovered(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start()
	code := ask[struct{ Recovery string }](tv, "home", "create", "Test home").Recovery
	panel := newNode(t, l, "Panel", "panel", "Hall")
	cam := newNode(t, l, "Cam", "camera", "Garden")
	tv.invite(panel, cam)
	tv.kill()
	if out, exit := panel.try("home", "room", "Attic"); exit != 5 || !strings.Contains(out, "TV") {
		t.Errorf("a device changed the home: exit %d: %s", exit, out)
	}
	wrong := "0" + code[1:]
	if wrong == code {
		wrong = "1" + code[1:]
	}
	if out, exit := panel.recovers(wrong); exit != 2 {
		t.Errorf("a mistyped code: exit %d: %s", exit, out)
	}
	if out, exit := panel.recovers(strings.ToLower(code)); exit != 0 {
		t.Fatalf("recover: exit %d: %s", exit, out)
	}
	if got := panel.home(); got.role("panel") != "owner" {
		t.Fatalf("%+v", got)
	}
	if state := ask[struct{ State string }](panel, "home", "remove", "tv").State; state != "proposed" {
		t.Errorf("one owner removed another at once: %s", state)
	}
	if out, exit := panel.recovers(code, "--remove", "tv"); exit != 0 {
		t.Fatalf("recover --remove: exit %d: %s", exit, out)
	}
	want := panel.home()
	if want.role("tv") != "" || len(want.Members) != 2 {
		t.Fatalf("%+v", want)
	}
	cam.eventually(5*time.Second, "it agrees", func() bool { return cam.home().Epoch == want.Epoch && cam.home().role("tv") == "" })
	for _, n := range []*node{panel, cam} {
		if bytes.Contains(n.log.Bytes(), []byte(code)) || bytes.Contains(n.log.Bytes(), []byte(strings.ToLower(code))) {
			t.Errorf("the recovery code is in the log of %s", n.name)
		}
	}
	tv.start()
	if out, exit := tv.try("call", "cam"); exit == 0 {
		t.Errorf("the lost owner may call again: %s", out)
	}
	if got := cam.home(); got.role("tv") != "" || cam.sees("tv") != "" {
		t.Errorf("the lost owner is back: %+v", got)
	}
	panel.run("home", "rule", "cam", "call", "--nobody")
	cam.eventually(5*time.Second, "it knows the rule", func() bool { return cam.home().Epoch == want.Epoch+1 })
	if out, exit := panel.try("call", "cam"); exit != 5 || !strings.Contains(out, "the rules of the home do not allow it") {
		t.Errorf("a call against the rules: exit %d: %s", exit, out)
	}
	if out := panel.run("home", "log"); !strings.Contains(out, "recovery code") {
		t.Errorf("the log does not tell of the recovery: %s", out)
	}
	panel.run("home", "role", "cam", "owner")
	cam.kill()
	panel.eventually(10*time.Second, "the other owner is gone", func() bool { return panel.sees("cam") == "unreachable" })
	if out, exit := panel.types(code, "checkpoint"); exit == 0 || !strings.Contains(out, "cam") {
		t.Errorf("a checkpoint without an owner: exit %d: %s", exit, out)
	}
	cam.start()
	panel.eventually(15*time.Second, "the checkpoint is made", func() bool { _, exit := panel.types(code, "checkpoint"); return exit == 0 })
	want = panel.home()
	cam.eventually(5*time.Second, "it follows", func() bool { return cam.home().Epoch == want.Epoch })
	if out := cam.run("home", "log"); strings.Count(out, "\n") > 2 || !strings.Contains(out, "compacted") {
		t.Errorf("the history was not compacted: %s", out)
	}
	cam.run("home", "room", "Attic")
	panel.eventually(5*time.Second, "edits go on", func() bool { return panel.home().Epoch == want.Epoch+1 })
}

// Two owners of different branches put the first owner out together: one proposes, the
// other agrees with the same command, and it is refused everywhere at once.
func TestA9_TwoOwnersRemoveTheFirst(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Hall")
	pad := newNode(t, l, "Pad", "phone", "Kitchen")
	tv.invite(panel, pad)
	tv.run("home", "role", "panel", "owner")
	tv.run("home", "role", "pad", "owner")
	for _, n := range []*node{panel, pad} {
		n.eventually(5*time.Second, "both are owners", func() bool { return n.home().role("panel") == "owner" && n.home().role("pad") == "owner" })
	}
	type removal struct {
		State string
		Until time.Time
	}
	got := ask[removal](panel, "home", "remove", "tv")
	if got.State != "proposed" || time.Until(got.Until) < 23*time.Hour {
		t.Fatalf("%+v", got)
	}
	if again := ask[removal](panel, "home", "remove", "tv"); again.State != "proposed" {
		t.Fatalf("asking twice is enough: %+v", again)
	}
	pad.eventually(5*time.Second, "it hears of the proposal", func() bool { return strings.Contains(pad.run("home", "show"), `"by":"panel"`) })
	if got := ask[removal](pad, "home", "remove", "tv"); got.State != "removed" {
		t.Fatalf("%+v", got)
	}
	for _, n := range []*node{panel, pad} {
		n.eventually(5*time.Second, "the first owner is out", func() bool { return n.home().role("tv") == "" && n.sees("tv") == "" })
	}
	if out, exit := tv.try("call", "panel"); exit == 0 {
		t.Errorf("the removed owner may call: %s", out)
	}
}
