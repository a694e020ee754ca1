package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	drive "github.com/hallway-home/hallway/test/browser"
	"github.com/hallway-home/hallway/test/netlab"
)

// withApp skips without a build of the app.
func withApp(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("../../cmd/companion/dist/index.html"); err != nil {
		missing(t, "the companion app was not built; make companion builds it (npm)")
	}
}

// click, fill, choose, wait and gone do what a person does; at is a selector of Playwright.
func (b *browser) click(at string) { b.t.Helper(); b.act("click", at, "") }

func (b *browser) fill(at, value string) { b.t.Helper(); b.act("fill", at, value) }

func (b *browser) choose(at, value string) { b.t.Helper(); b.act("choose", at, value) }

func (b *browser) wait(at string) { b.t.Helper(); b.act("wait", at, "") }

func (b *browser) gone(at string) { b.t.Helper(); b.act("gone", at, "") }

func (b *browser) act(do, at, value string) {
	b.t.Helper()
	if err := b.Act(do, at, value); err != nil {
		b.t.Fatal(err)
	}
}

// run evaluates the body of an async function in the page, with nothing of the test in it.
func (b *browser) run(js string, to any) {
	b.t.Helper()
	if err := b.Run(js, to); err != nil {
		b.t.Fatal(err)
	}
}

// button is the selector of a button by its name, as a screen reader says it.
func button(name string) string { return drive.Button(name) }

func (b *browser) screen(name string) {
	b.t.Helper()
	b.click(`role=link[name="` + name + `"]`)
	b.wait("h1")
}

// looks are the sizes and themes in which every screen is drawn and judged.
func looks() []struct {
	name          string
	width, height int
	dark          bool
} {
	return []struct {
		name          string
		width, height int
		dark          bool
	}{{"phone", 390, 844, false}, {"dark", 390, 844, true}, {"tablet", 1024, 768, false}, {"tv", 1920, 1080, true}}
}

type violation struct {
	ID     string
	Impact string
	Help   string
	Nodes  []struct{ HTML, FailureSummary string }
}

// draw makes pictures of what is shown now under build/screens, and lets axe-core judge each.
func (b *browser) draw(name string) {
	b.t.Helper()
	axe, err := os.ReadFile("../../cmd/companion/node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatal("axe-core comes with make companion: ", err)
	}
	dir, err := filepath.Abs("../../build/screens")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range looks() {
		if _, err := b.command(map[string]any{"do": "look", "width": l.width, "height": l.height, "dark": l.dark}); err != nil {
			b.t.Fatal(err)
		}
		if _, err := b.command(map[string]any{"do": "shot", "file": filepath.Join(dir, name+"-"+l.name+".png")}); err != nil {
			b.t.Fatal(err)
		}
		var wide int
		b.run(`return document.documentElement.scrollWidth - innerWidth`, &wide)
		if wide > 0 {
			b.t.Errorf("%s, %s: %d pixels wider than the screen", name, l.name, wide)
		}
		if l.name != "phone" && l.name != "dark" { // what axe-core sees changes with the colours, not with the size
			continue
		}
		var found struct {
			Passes     int
			Violations []violation
		}
		b.run(string(axe)+`; const r = await axe.run(); return { passes: r.passes.length, violations: r.violations }`, &found)
		if found.Passes == 0 {
			b.t.Errorf("%s, %s: axe-core judged nothing", name, l.name)
		}
		for _, v := range found.Violations {
			if v.Impact == "serious" || v.Impact == "critical" {
				b.t.Errorf("%s, %s: %s (%s): %s %+v", name, l.name, v.ID, v.Impact, v.Help, v.Nodes)
			}
		}
	}
}

// asCamera writes a film that shows a QR code, as a phone's camera would see it.
func asCamera(t *testing.T, text string) string {
	t.Helper()
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	const width, height = 640, 480
	var film bytes.Buffer
	fmt.Fprintf(&film, "YUV4MPEG2 W%d H%d F10:1 Ip A1:1 C420\n", width, height)
	scale := 400 / code.Size
	left, top := (width-scale*code.Size)/2, (height-scale*code.Size)/2
	for range 2 {
		film.WriteString("FRAME\n")
		for y := range height {
			for x := range width {
				luma := byte(235)
				if x >= left && y >= top && code.Black((x-left)/scale, (y-top)/scale) {
					luma = 16
				}
				film.WriteByte(luma)
			}
		}
		film.Write(bytes.Repeat([]byte{128}, width*height/2))
	}
	file := filepath.Join(t.TempDir(), "qr.y4m")
	if err := os.WriteFile(file, film.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// appHome is a home of two owners with rooms, and hosts for phones and a foreign camera.
func appHome(t *testing.T) (kitchen, hall *node, l *netlab.Lab) {
	t.Helper()
	withApp(t)
	l = newLab(t)
	kitchen = newNode(t, l, "Stove", "panel", "Kitchen").start().found()
	hall = newNode(t, l, "Wall", "tv", "Hall")
	kitchen.invite(hall)
	kitchen.run("home", "role", "wall", "owner")
	_, _ = kitchen.origin(), hall.origin() // both can serve the app
	return kitchen, hall, l
}

// TestApp walks through the app as people do: a phone is paired by what its camera sees and sees the
// house, a camera is added, names change, a second phone comes by an invitation of the first and
// goes by its removal. Each screen is drawn, and judged by axe-core.
func TestApp(t *testing.T) {
	kitchen, hall, l := appHome(t)
	origin := kitchen.origin()
	annas := l.MustHost(t, "anna")
	kitchen.takeName(nil, annas)
	w := ask[phoneWindow](kitchen, "phone", "--name", "Anna", "--no-wait")
	phone := kitchen.browserOn(annas, virtual, "--use-file-for-fake-video-capture="+asCamera(t, w.URL))
	if status, err := phone.open(origin + "/"); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v", status, err)
	}
	phone.wait(button("Scan"))
	phone.draw("pair")
	phone.click(button("Scan"))
	phone.named("Anna's phone")
	phone.wait(".words")
	phone.draw("pair-waiting")
	kitchen.run("phone", "accept")
	phone.wait("role=heading[name=House]")
	phone.wait("[data-room=kitchen] [data-slug=stove] .state.on")
	phone.wait("[data-room=hall] [data-slug=wall] .state.on")
	phone.draw("house")
	t.Run("opens in time", func(t *testing.T) { opensInTime(t, phone, origin) })

	// What changes in the home is seen without being asked for.
	hall.kill()
	phone.wait("[data-slug=wall] .state:not(.on)")
	hall.start()
	phone.wait("[data-slug=wall] .state.on")

	t.Run("a camera is added", func(t *testing.T) {
		cam := newCamera(t, l.MustHost(t, "Camera"))
		phone.screen("Add")
		phone.draw("add")
		phone.click(button("Add a camera"))
		phone.fill("input[name=uri]", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")))
		phone.fill("input[name=name]", "Garden gate")
		phone.choose("select", "Kitchen")
		phone.draw("add-camera")
		phone.click("main >> " + button("Add"))
		phone.wait("text=Garden gate belongs to the home.")
		if got := kitchen.adopted("garden-gate"); got == "" {
			t.Error("the kitchen does not know the camera")
		}
		phone.screen("House")
		phone.wait("[data-room=kitchen] [data-slug=garden-gate]")
		phone.wait("[data-slug=garden-gate] >> text=Watch")
	})
	t.Run("names change", func(t *testing.T) {
		phone.screen("People and devices")
		phone.click("li[data-slug=wall] >> " + button("Rename"))
		phone.fill("input[name=name]", "Big screen")
		phone.choose("li[data-slug=wall] form select", "Kitchen")
		phone.click(button("Save"))
		phone.wait("li[data-slug=wall] >> text=Big screen")
		phone.wait("li[data-slug=wall] >> text=Kitchen · tv")
		hall.eventually(5*time.Second, "the renamed device knows it", func() bool {
			return slices.ContainsFunc(ask[struct{ Devices []device }](hall, "devices").Devices, func(d device) bool { return d.Slug == "wall" && d.Name == "Big screen" })
		})
		phone.click(button("Check"))
		phone.wait("text=More than one owner")
		phone.draw("people")
	})
	t.Run("a phone comes and goes", func(t *testing.T) { comesAndGoes(t, phone, kitchen, l.MustHost(t, "ben")) })
	t.Run("rules", func(t *testing.T) {
		phone.screen("Settings")
		phone.click("input[name=dnd]")
		kitchen.eventually(5*time.Second, "Anna is not to be disturbed", func() bool { return kitchen.presence("anna") == "dnd" })
		phone.draw("settings")
		phone.choose("section >> select >> nth=0", "de")
		phone.wait("role=heading[name=Einstellungen]")
		phone.choose("section >> select >> nth=0", "en")
		phone.screen("Activity")
		phone.wait("li[data-number]")
		phone.draw("activity")
	})
	t.Run("panel", func(t *testing.T) { panelLives(t, phone, kitchen, origin) })
}

// has looks for something now.
func (b *browser) has(at string) bool {
	b.t.Helper()
	var found bool
	b.run(`return document.querySelector(`+"`"+at+"`"+`) !== null`, &found)
	return found
}

func opensInTime(t *testing.T, phone *browser, origin string) {
	const ceiling = 300.0 // milliseconds (issue 5)
	for attempt := 1; ; attempt++ {
		var took []float64
		for range 5 {
			if _, err := phone.open(origin + "/"); err != nil {
				t.Fatal(err)
			}
			phone.wait("[data-slug=stove]")
			var at float64
			phone.run(`return performance.getEntriesByName("house")[0].startTime`, &at)
			took = append(took, at)
		}
		slices.Sort(took)
		t.Logf("attempt %d: the house is shown %.0f ms after opening (median of %.0f)", attempt, took[2], took)
		if took[2] < ceiling {
			return
		}
		if attempt == 3 {
			t.Fatalf("the house takes longer than %.0f ms to show", ceiling)
		}
	}
}

func comesAndGoes(t *testing.T, phone *browser, kitchen *node, bens *netlab.Host) {
	second := kitchen.browserOn(bens, virtual)
	phone.fill("input[name=person]", "Ben")
	phone.click(button("Make an invitation"))
	phone.wait(".qr path")
	phone.draw("invite")
	var code string
	phone.run(`return document.querySelector(".invite .words").textContent`, &code)
	if _, err := second.open(kitchen.origin() + "/"); err != nil {
		t.Fatal(err)
	}
	second.typed(code, "Ben's phone")
	phone.wait("text=Does it show the words")
	phone.click(button("Let it in"))
	phone.wait("text=Ben is in.")
	second.wait("role=heading[name=House]")
	second.screen("Add")
	second.wait("text=Only an owner can do this.")
	second.screen("House")
	phone.click("[data-slug=bens-phone] >> button")
	phone.wait("dialog >> text=signed out within seconds")
	phone.draw("remove")
	phone.click("dialog >> " + button("Remove"))
	phone.gone("[data-slug=bens-phone]")
	began := time.Now()
	second.wait(`role=heading[name="Make this your phone"]`)
	t.Logf("the removed phone is at the door %v later", time.Since(began))
	if home := kitchen.run("home", "show"); strings.Contains(home, "bens-phone") {
		t.Errorf("the kitchen still lists it: %s", home)
	}
}

// panelLives arms a panel by one tap; its node is killed and comes back, and the panel goes on
// without another tap, also after it was loaded anew.
func panelLives(t *testing.T, phone *browser, kitchen *node, origin string) {
	if _, err := phone.open(origin + "/panel"); err != nil {
		t.Fatal(err)
	}
	phone.wait(button("Start the panel"))
	phone.draw("panel-start")
	phone.click(button("Start the panel"))
	phone.wait(".clock")
	phone.wait("[data-slug=kitchen]")
	phone.draw("panel")
	var lock string
	phone.run(`return navigator.wakeLock ? "there" : "missing"`, &lock)
	t.Logf("wake lock: %s", lock)
	kitchen.kill()
	phone.wait("text=Connecting…")
	kitchen.start()
	phone.wait("[data-slug=stove], [data-slug=kitchen]")
	if _, err := phone.open(origin + "/panel"); err != nil {
		t.Fatal(err)
	}
	phone.wait(".clock")
	if phone.has("main.alone") {
		t.Error("the panel asks again after a reload")
	}
}
