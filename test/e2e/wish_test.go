package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAPageOfADevicesNodeChangesTheHome: the app has one origin, and whichever node serves it, what an
// owner-person does there just works, while an owner's node can be reached. Here the page is served by a
// device's node alone, of two owners one dies, then the other.
func TestAPageOfADevicesNodeChangesTheHome(t *testing.T) {
	stove, wall, l := appHome(t)
	stove.run("home", "role", "wall", "device")
	attic := newNode(t, l, "Attic", "panel", "Top floor")
	old := newNode(t, l, "Old", "speaker", "Hall")
	stove.invite(attic, old)
	stove.run("home", "role", "attic", "owner")
	role := func(n *node, slug string) string {
		for _, m := range ask[struct {
			Members []struct{ Slug, Name, Role string }
		}](n, "home", "show").Members {
			if m.Slug == slug {
				return m.Role + " " + m.Name
			}
		}
		return ""
	}
	wall.eventually(10*time.Second, "the wall is a device's node and knows both owners", func() bool {
		return role(wall, "wall") == "device Wall" && role(wall, "attic") == "owner Attic" && wall.sees("attic") == "reachable" && wall.sees("stove") == "reachable"
	})

	// At the device itself it stays refused: there nobody has signed anything.
	if out, code := wall.try("home", "rename", "wall", "Mine"); code == 0 || !strings.Contains(out, "do it on an owner: Attic, Stove") {
		t.Errorf("the device's own command line: %d %s", code, out)
	}

	annas := l.MustHost(t, "anna")
	wall.takeName(nil, annas)
	w := ask[phoneWindow](stove, "phone", "--name", "Anna", "--no-wait")
	phone := stove.browserOn(annas, virtual)
	if _, err := phone.open(stove.origin() + "/"); err != nil {
		t.Fatal(err)
	}
	phone.typed(w.Code, "Anna's phone")
	phone.letIn(stove)
	var served string
	phone.eval(`return (await hallway.call("GET", "/status")).name`, &served)
	if served != "Wall" {
		t.Fatalf("the page is served by %s", served)
	}

	t.Run("a camera is added", func(t *testing.T) {
		cam := newCamera(t, l.MustHost(t, "Camera"))
		phone.screen("Add")
		phone.click(button("Add a camera"))
		phone.fill("input[name=uri]", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")))
		phone.fill("input[name=name]", "Garden gate")
		phone.choose("select", "Kitchen")
		phone.click("main >> " + button("Add"))
		phone.wait("text=Garden gate belongs to the home.")
		phone.screen("House")
		phone.wait("[data-room=kitchen] [data-slug=garden-gate]")
	})
	t.Run("a new device says what it is and is added", func(t *testing.T) {
		tablet := newNode(t, l, "Tablet", "panel", "Nursery").start()
		p := ask[pairState](tablet, "pair", "--no-wait")
		phone.screen("Add")
		wall.eventually(15*time.Second, "it is identified", func() bool {
			phone.fill("input[name=code]", p.ShortID+" "+p.Code)
			phone.click(button("Next"))
			phone.wait("form input[name=name], p.trouble")
			return phone.has("form input[name=name]")
		})
		phone.wait("text=Wall panel that calls itself “Tablet” · " + p.ShortID)
		phone.draw("add-device")
		is, err := tablet.host.Command(t.Context(), "curl", "-s", "--unix-socket", filepath.Join(tablet.dir, "hallway.sock"), "http://device/api/v1/pair").Output()
		if err != nil || !strings.Contains(string(is), `"state":"naming"`) {
			t.Errorf("meanwhile the device says %s, %v", is, err)
		}
		if role(stove, "tablet") != "" {
			t.Error("it belongs before it was added")
		}
		phone.click("main >> " + button("Add"))
		phone.wait("text=Tablet belongs to the home.")
		tablet.eventually(5*time.Second, "it knows its home", func() bool { return tablet.sees("wall") == "reachable" })
		phone.screen("House")
		phone.wait("[data-room=nursery] [data-slug=tablet] .state.on")
	})
	t.Run("names change", func(t *testing.T) {
		began := time.Now()
		rename(phone, "wall", "Größer 2")
		t.Logf("renamed and shown %v after the form was opened", time.Since(began))
		stove.eventually(5*time.Second, "the owner knows it", func() bool { return role(stove, "wall") == "device Größer 2" })
	})
	t.Run("rules change", func(t *testing.T) {
		phone.screen("Settings")
		phone.click("input[name=dnd]")
		stove.eventually(5*time.Second, "nobody may call Anna", func() bool {
			return phone.has("input[name=dnd]:checked") && strings.Contains(stove.run("home", "show"), "anna")
		})
		phone.click("input[name=dnd]")
		stove.eventually(5*time.Second, "she can be called again", func() bool { return phone.has("input[name=dnd]:not(:checked)") })
	})
	phone.screen("People and devices")
	t.Run("a phone comes and goes", func(t *testing.T) { comesAndGoes(t, phone, stove, l.MustHost(t, "ben")) })
	t.Run("a device is removed", func(t *testing.T) {
		phone.screen("People and devices")
		phone.click("li[data-slug=old] >> " + button("Remove"))
		phone.click("dialog >> " + button("Remove"))
		phone.gone("li[data-slug=old]")
		stove.eventually(5*time.Second, "the owners know it", func() bool { return role(stove, "old") == "" && role(attic, "old") == "" })
	})
	t.Run("nothing is done without a signature", func(t *testing.T) { unsignedIsRefused(t, phone) })
	t.Run("an owner dies, then the other", func(t *testing.T) {
		stove.kill()
		began := time.Now()
		rename(phone, "attic", "Loft")
		t.Logf("renamed by the other owner %v after the first died", time.Since(began))
		attic.eventually(5*time.Second, "the other owner did it", func() bool { return role(attic, "attic") == "owner Loft" })
		attic.kill()
		phone.click("li[data-slug=attic] >> " + button("Rename"))
		phone.fill("input[name=name]", "Nobody's")
		began = time.Now()
		phone.click(button("Save"))
		phone.wait("text=only an owner's device can do this, and none can be reached; switch on Loft or Stove and try again")
		t.Logf("said %v after the tap that no owner can be reached", time.Since(began))
		stove.start()
		wall.eventually(20*time.Second, "the first owner is back", func() bool { return wall.sees("stove") == "reachable" })
		phone.click(button("Save"))
		phone.wait("li[data-slug=attic] >> text=Nobody's")
		stove.eventually(5*time.Second, "it did it once", func() bool {
			return role(stove, "attic") == "owner Nobody's" && len(slices.Collect(edits(stove, "Nobody's"))) == 1
		})
	})
}

// rename changes a name on the screen of people and devices.
func rename(phone *browser, slug, name string) {
	phone.t.Helper()
	phone.screen("People and devices")
	phone.click("li[data-slug=" + slug + "] >> " + button("Rename"))
	phone.fill("input[name=name]", name)
	phone.click(button("Save"))
	phone.wait("li[data-slug=" + slug + "] >> text=" + name)
}

// edits are those of the home's history that speak of something.
func edits(n *node, what string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, e := range ask[[]struct{ What string }](n, "home", "log") {
			if strings.Contains(e.What, what) && !yield(e.What) {
				return
			}
		}
	}
}

// unsignedIsRefused: who has the page's session and not its key gets a challenge and no more, also with
// another request's signature, which counts once.
func unsignedIsRefused(t *testing.T, phone *browser) {
	var got struct {
		Bare, First, Again, Other int
		Asks                      string
	}
	phone.eval(`
		const s = await hallway.call("GET", "/session")
		const send = (method, path, body, Authorization) => fetch("/api/v1" + path, { method, body, headers: { "Content-Type": "application/json", "X-CSRF-Token": s.csrf, ...(Authorization ? { Authorization } : {}) } })
		const body = JSON.stringify({ name: "Signed once" })
		const bare = await send("PATCH", "/home/names/attic", body)
		const asks = bare.headers.get("WWW-Authenticate")
		const [, home, owner, challenge] = /home="(\w+)", owner="(\w+)", challenge="([\w-]+)"/.exec(asks)
		const k = await hallway.key()
		const text = await hallway.wishStatement(home, owner, challenge, "PATCH", "/api/v1/home/names/attic", body)
		const sig = new Uint8Array(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, k.privateKey, new TextEncoder().encode(text)))
		const signature = btoa(String.fromCharCode(...sig)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
		const signed = 'Hallway-Wish owner="' + owner + '", challenge="' + challenge + '", signature="' + signature + '"'
		const other = await send("PATCH", "/home/names/wall", body, signed)
		const first = await send("PATCH", "/home/names/attic", body, signed)
		const again = await send("PATCH", "/home/names/attic", body, signed)
		return { Bare: bare.status, Asks: asks, Other: other.status, First: first.status, Again: again.status }`, &got)
	if got.Bare != 401 || got.Other != 422 || got.First != 204 || got.Again != 422 {
		t.Errorf("%+v", got)
	}
}
