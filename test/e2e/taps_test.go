package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestA8_ThreeTapsAdmitADevice: a new device shows its code; an owner's phone scans it and lets it in, in
// three taps. Before that it is in sight and no more: whoever holds its key gets no flow for SIP or records.
func TestA8_ThreeTapsAdmitADevice(t *testing.T) {
	withApp(t)
	l := newLab(t)
	member := program(t, "member")
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	cam := newNode(t, l, "Cam", "camera", "Garden", "--source-clip", clip(t, 440)).start()
	p := ask[struct {
		pairState
		QR string
	}](cam, "pair", "--no-wait", "--minutes", "10")
	phone := tv.person(l.MustHost(t, "anna"), "Anna", "owner", tv.host.IPv4, "--use-file-for-fake-video-capture="+asCamera(t, p.QR))
	tv.wrongCode(p.ShortID) // its window is seen

	outside := time.Now()
	k := knocks(t, l, member, storeOf(t, cam), tv.host.IPv4)
	phone.wait("[data-slug=tv] .state.on")
	if phone.has("[data-slug=cam]") || tv.sees("cam") != "" {
		t.Error("a device that nobody admitted is in the house")
	}
	if out, code := tv.try("call", "cam"); code != 4 {
		t.Errorf("calling it: exit %d: %s", code, out)
	}
	if out, code := cam.try("call", "tv"); code == 0 || !strings.Contains(out, "home") {
		t.Errorf("it calls: exit %d: %s", code, out)
	}
	tv.eventually(5*time.Second, "its key is refused", func() bool { return k.refusedSince(tv.host.IPv4, outside) })
	served := []string{"flow sip", "flow hallway-overlay/1", "sip", "records"}
	if at := k.last(tv.host.IPv4, outside, served...); !at.IsZero() {
		t.Error("its key got a flow before it was admitted")
	}
	if !strings.Contains(tv.log.String(), "the peer's key does not belong to this home") {
		t.Error("it was refused for another reason than who it is")
	}

	phone.run(`watch.taps = 0`, nil)
	phone.screen("Add")
	phone.click(button("Scan"))
	phone.click("main >> " + button("Add"))
	phone.wait("text=Cam belongs to the home.")
	if taps := phone.capturing().Taps; taps != 3 {
		t.Errorf("it took %d taps", taps)
	}
	tv.eventually(5*time.Second, "it belongs", func() bool { return tv.sees("cam") == "reachable" })
	cam.eventually(5*time.Second, "it knows", func() bool { return cam.sees("tv") == "reachable" })
	phone.screen("House")
	phone.wait("[data-slug=cam] .state.on")
}
