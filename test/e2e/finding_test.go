package e2e

import (
	"testing"
	"time"
)

// A camera that starts in a home that knows it: both list each other, with
// capabilities, within 1 s of its start.
func TestA2_CameraAndTVListEachOther(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	cam := newNode(t, l, "Cam", "camera", "Garden")
	tv.invite(cam)
	attempts(t, "listed on both sides after a start", time.Second, func(t *testing.T) time.Duration {
		cam.stop()
		tv.eventually(2*time.Second, "the camera is gone from the list", func() bool { return tv.sees("cam") == "unreachable" })
		cam.start()
		tv.eventually(5*time.Second, "TV lists the camera", func() bool { return tv.sees("cam") == "reachable" })
		cam.eventually(5*time.Second, "the camera lists the TV", func() bool { return cam.sees("tv") == "reachable" })
		return time.Since(cam.began)
	})
	for _, d := range ask[devices](tv, "devices").Devices {
		if d.Slug == "cam" && (d.Caps.Video.Direction != "sendonly" || d.Caps.Audio.Direction != "sendonly") {
			t.Errorf("the camera's capabilities: %+v", d.Caps)
		}
	}
}

// Every kind of name resolves on every node; killing any one device leaves every other
// name as it was.
func TestA11_NamesResolveOnEveryNode(t *testing.T) {
	l := newLab(t)
	nodes := namedHome(t, l)
	want := map[string]string{
		"kitchen-panel": "device", "kitchen": "room", "downstairs": "group", "maria": "person", "marias-phone": "device", "living-room-tv": "device",
	}
	for _, n := range nodes {
		for slug, kind := range want {
			n.eventually(5*time.Second, "resolves "+slug, func() bool { _, code := n.try("resolve", slug); return code == 0 })
			r := ask[struct {
				Kind    string
				Devices []device
			}](n, "resolve", slug)
			if r.Kind != kind || len(r.Devices) == 0 {
				t.Errorf("%s: %s is %+v, want a %s", n.name, slug, r, kind)
			}
		}
		if _, code := n.try("resolve", "nobody"); code != 4 {
			t.Errorf("%s: an unknown name gave exit %d", n.name, code)
		}
	}
}

func namedHome(t *testing.T, l *labT) []*node {
	tv := newNode(t, l, "Living room TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Kitchen panel", "panel", "Kitchen")
	phone := newNode(t, l, "Marias phone", "phone", "")
	tv.invite(panel, phone)
	tv.run("home", "group", "Downstairs", "kitchen", "living-room-tv")
	tv.run("home", "person", "Maria", "marias-phone")
	nodes := []*node{tv, panel, phone}
	for _, n := range nodes { // what one of them was told, the others hear a moment later
		for _, slug := range homeNames {
			n.eventually(5*time.Second, slug+" resolves", func() bool { _, code := n.try("resolve", slug); return code == 0 })
		}
	}
	return nodes
}

// homeNames are the names of the home of namedHome.
var homeNames = []string{"kitchen", "downstairs", "maria", "kitchen-panel", "living-room-tv", "marias-phone"}

// Kill any one device: every other name still resolves, and is still reached.
func TestA12_KillAnyOneDevice(t *testing.T) {
	l := newLab(t)
	nodes := namedHome(t, l)
	for _, victim := range nodes {
		victim.kill()
		for _, n := range nodes {
			if n == victim {
				continue
			}
			took := n.eventually(5*time.Second, victim.name+" shows as unreachable", func() bool { return n.sees(slugOf(victim.name)) == "unreachable" })
			t.Logf("%s knows that %s is gone after %v", n.name, victim.name, took.Round(time.Millisecond))
			for _, slug := range homeNames {
				if out, code := n.try("resolve", slug); code != 0 {
					t.Errorf("%s without %s: %s does not resolve: %s", n.name, victim.name, slug, out)
				}
			}
			start := time.Now()
			out, code := n.try("call", slugOf(victim.name))
			if code != 7 || time.Since(start) > 4*time.Second {
				t.Errorf("a call to a dead device: exit %d after %v: %s", code, time.Since(start), out)
			}
		}
		victim.start()
		for _, n := range nodes {
			n.eventually(10*time.Second, victim.name+" is back", func() bool { return n.sees(slugOf(victim.name)) == "reachable" })
		}
	}
}
