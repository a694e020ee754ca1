package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

type labT = netlab.Lab

// Before it is admitted a device can be seen, but can neither call nor be called nor
// write a record; one command admits it.
func TestA8_SeenButOutsideUntilAdmitted(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	cam := newNode(t, l, "Cam", "camera", "Garden").start()
	tv.eventually(5*time.Second, "the stranger is seen", func() bool {
		for _, f := range ask[devices](tv, "devices", "--all").Foreign {
			if strings.HasPrefix(f.Name, "Hallway-") {
				return true
			}
		}
		return false
	})
	if got := tv.sees("cam"); got != "" {
		t.Fatalf("a stranger is listed as %s", got)
	}
	if out, code := tv.try("call", "cam"); code != 4 {
		t.Errorf("calling a stranger: exit %d: %s", code, out)
	}
	if out, code := cam.try("call", "tv"); code == 0 || !strings.Contains(out, "home") {
		t.Errorf("a stranger may call: exit %d: %s", code, out)
	}
	p := ask[pairState](cam, "pair", "--no-wait")
	tv.eventually(5*time.Second, "the window is seen", func() bool {
		out, code := tv.try("add", p.ShortID, p.Code, "--name", "Garden cam")
		if code != 0 && !strings.Contains(out, "waits to be added") {
			t.Fatalf("add: %s", out)
		}
		return code == 0
	})
	tv.eventually(5*time.Second, "it belongs", func() bool { return tv.sees("garden-cam") == "reachable" })
	cam.eventually(5*time.Second, "it knows", func() bool { return cam.sees("tv") == "reachable" })
	if out, code := cam.try("pair", "--no-wait"); code == 0 {
		t.Errorf("a member opened a window to join another home: %s", out)
	}
}

type pairState struct {
	State, Code, Reason string
	ShortID             string `json:"short_id"`
}

// wrongCode waits until a device with an open window is seen, and tries a wrong code.
func (n *node) wrongCode(id string) (out string) {
	n.t.Helper()
	n.eventually(8*time.Second, "the window of "+id+" is seen and a wrong code refused", func() bool {
		for digit := range 10 { // one of them is the right check digit
			var code int
			if out, code = n.try("add", id, fmt.Sprintf("24681357%d", digit)); code == 5 {
				return true
			}
		}
		return false
	})
	return out
}

// A wrong code is refused in plain words; a used one opens nothing.
func TestA10_WrongCodeIsRefused(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	cam := newNode(t, l, "Cam", "camera", "").start()
	p := ask[pairState](cam, "pair", "--no-wait")
	out := tv.wrongCode(p.ShortID)
	if !strings.Contains(out, "read the code again") {
		t.Fatalf("a wrong code reads: %s", out)
	}
	if tv.sees("cam") != "" {
		t.Fatal("a wrong code admitted a device")
	}
	if out, code := tv.try("add", "ZZZZ", p.Code); code == 0 || !strings.Contains(out, "ZZZZ") {
		t.Errorf("a device that is not there: exit %d: %s", code, out)
	}
	tv.run("add", p.ShortID, p.Code)
	if out, code := tv.try("add", p.ShortID, p.Code); code == 0 {
		t.Errorf("a used code works again: %s", out)
	}
}

// hostile builds the program that stands between owner and device.
func hostile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mitm")
	if out, err := exec.Command("go", "build", "-o", file, "./mitm").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// A neighbour that relays the whole exchange, code and all, under a key of its own gets
// nothing; nor does one that repeats later what it heard.
func TestA10_RelayedAndReplayedExchangesAreRefused(t *testing.T) {
	l := newLab(t)
	mitm := hostile(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	cam := newNode(t, l, "Cam", "camera", "").start()
	evil, err := l.Host("evil")
	if err != nil {
		t.Fatal(err)
	}
	p := ask[pairState](cam, "pair", "--no-wait", "--minutes", "5")
	tape := filepath.Join(t.TempDir(), "tape")
	relay := evil.Command(t.Context(), mitm, "-listen", ":7000", "-target", cam.host.IPv4+":5061", "-tape", tape)
	out, err := relay.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	said, code := tv.try("add", p.ShortID, p.Code, "--addr", evil.IPv4+":7000")
	if code != 5 || !strings.Contains(said, "not the device that shows it") {
		t.Errorf("a relayed exchange: exit %d: %s", code, said)
	}
	_ = relay.Wait()
	again, err := evil.Command(t.Context(), mitm, "-target", cam.host.IPv4+":5061", "-tape", tape).CombinedOutput()
	if err != nil || !strings.Contains(string(again), "wrong-code") {
		t.Errorf("a replayed exchange: %v: %s", err, again)
	}
	if tv.sees("cam") != "" {
		t.Fatal("the device was admitted")
	}
	if _, code := cam.try("home", "show"); code == 0 {
		t.Fatal("the device joined")
	}
	tv.eventually(5*time.Second, "the true exchange still works", func() bool { _, code := tv.try("add", p.ShortID, p.Code); return code == 0 })
}

// A device that calls itself the same but has another key: the code of the one does not
// open the other, whichever the owner names.
func TestA10_LookAlikeIsRefused(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	cam := newNode(t, l, "Cam", "camera", "").start()
	twin := newNode(t, l, "Cam", "camera", "").start()
	p := ask[pairState](cam, "pair", "--no-wait")
	q := ask[pairState](twin, "pair", "--no-wait")
	tv.wrongCode(p.ShortID)
	tv.wrongCode(q.ShortID)
	if said, code := tv.try("add", p.Code); code != 2 || !strings.Contains(said, p.ShortID) || !strings.Contains(said, q.ShortID) {
		t.Errorf("a code without a name, with two devices waiting: exit %d: %s", code, said)
	}
	if said, code := tv.try("add", q.ShortID, p.Code); code != 5 {
		t.Errorf("the look-alike: exit %d: %s", code, said)
	}
	if _, code := twin.try("home", "show"); code == 0 || tv.sees("cam") != "" {
		t.Fatal("the look-alike joined")
	}
	tv.run("add", p.ShortID, p.Code)
	tv.eventually(5*time.Second, "the true one joins", func() bool { return tv.sees("cam") == "reachable" })
}
