// Package test holds what crosses packages. The tests of this folder keep the shape of
// the house: who may import whom, how long things may get, and that the checks which
// guard a home are themselves guarded.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module      = "github.com/hallway-home/hallway/"
	root        = ".."
	maxFile     = 600 // lines: longer files are read by nobody
	maxFunction = 80  // lines, tables aside
)

// room is one folder of the house and what it may import from this repository.
type room struct {
	dir   string // with all below it, unless a longer entry fits
	may   []string
	cause string
}

func house() []room {
	return []room{
		{"profiles", nil, "a kind of device knows nothing of networks or homes"},
		{"devices", []string{"profiles"}, "the nouns and the directory are a pure fold: how facts arrive is not their business"},
		{"devices/trust", []string{"profiles", "devices"}, "who belongs is decided from keys and edits alone"},
		{"devices/pairing", []string{"profiles", "devices", "devices/trust"}, "joining is bytes in and bytes out; transports are plugged in"},
		{"devices/records", []string{"profiles", "devices", "devices/trust"}, "what was said is kept and compared the same, whatever carries it"},
		{"devices/overlay", []string{"profiles", "devices", "devices/trust", "devices/records"}, "sharing knows who belongs, not how they joined nor what they say to each other"},
		{"discovery", []string{"profiles", "devices"}, "a sighting is a hint: discovery must not reach trust, nor start calls"},
		{"discovery/mdns", []string{"profiles", "devices", "discovery", "discovery/multicast"}, "one wire protocol; it does not know the others"},
		{"discovery/multicast", []string{"profiles", "devices", "discovery"}, "interfaces, groups and sources, whatever is said on them"},
		{"discovery/ssdp", []string{"profiles", "devices", "discovery", "discovery/multicast"}, "one wire protocol; it does not know the others"},
		{"discovery/wsd", []string{"profiles", "devices", "discovery", "discovery/multicast"}, "one wire protocol; it does not know the others"},
		{"discovery/sourcetest", []string{"discovery", "discovery/multicast"}, "what every protocol must do, so it knows none"},
		{"sessions", []string{"profiles", "devices"}, "calls declare what they need as interfaces; cmd plugs it in"},
		{"sessions/media", []string{"profiles", "devices", "sessions"}, "sources and sinks know no legs, so every kind of leg can use them"},
		{"sessions/media/rtsp", []string{"profiles", "sessions", "sessions/media"}, "one kind of source; media does not know which there are"},
		{"sessions/rtc", []string{"profiles", "devices", "sessions", "sessions/media"}, "one kind of leg"},
		{"sessions/edge", []string{"profiles", "devices", "sessions"}, "phones are screened and rung whatever their media are"},
		{"firmware", []string{"devices"}, "what is shipped does not depend on what it does"},
		{"scripts", nil, "tools that run before anything else works"},
		{"cmd", []string{"*"}, "the wiring may see everything"},
		{"test", []string{"*"}, "what crosses packages may see everything"},
		{"test/netlab", nil, "the demo ships it, so it drags nothing along"},
	}
}

func roomOf(dir string) (room, bool) {
	var found room
	for _, r := range house() {
		if (dir == r.dir || strings.HasPrefix(dir, r.dir+"/")) && len(r.dir) > len(found.dir) {
			found = r
		}
	}
	return found, found.dir != ""
}

// sources calls f for every Go file of the tree.
func sources(t *testing.T, f func(rel string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, root+string(filepath.Separator)))
		if e.IsDir() {
			if name := e.Name(); rel == "build" || name == "testdata" || name == "node_modules" || p != root && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		f(rel, set, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func importsOf(file *ast.File) []string {
	var out []string
	for _, i := range file.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

// faults says what is wrong with a file of dir that imports this.
func faults(dir, imported string) string {
	to, ok := strings.CutPrefix(imported, module)
	if !ok {
		return ""
	}
	from, ok := roomOf(dir)
	if !ok {
		return dir + " is no room of the house; give it a line in house() with its reason"
	}
	if to == dir || slices.Contains(from.may, "*") {
		if strings.HasPrefix(to, "test/") && to != "test/netlab" && !strings.HasPrefix(dir, "test") {
			return dir + " imports " + to + ": of test/, only netlab ships"
		}
		return ""
	}
	if to == from.dir || slices.Contains(from.may, to) {
		return ""
	}
	return dir + " imports " + to + ": " + from.cause
}

func TestWhoMayImportWhom(t *testing.T) {
	sources(t, func(rel string, _ *token.FileSet, file *ast.File) {
		if strings.HasSuffix(rel, "_test.go") {
			return // tests may bring neighbours together
		}
		for _, i := range importsOf(file) {
			if f := faults(path.Dir(rel), i); f != "" {
				t.Errorf("%s: %s", rel, f)
			}
		}
	})
	for _, bad := range [][2]string{
		{"sessions", "discovery"}, {"discovery", "devices/trust"}, {"devices", "devices/trust"}, {"profiles", "devices"},
		{"devices/trust", "devices/pairing"}, {"devices/records", "devices/overlay"}, {"discovery/mdns", "sessions"}, {"sessions/media", "sessions/media/rtsp"}, {"cmd/hallway", "test/e2e"}, {"attic", "devices"},
	} {
		if faults(bad[0], module+bad[1]) == "" {
			t.Errorf("the rules let %s import %s", bad[0], bad[1])
		}
	}
}

func TestNamesOfPackagesSayWhatTheyOwn(t *testing.T) {
	forbidden := []string{"util", "utils", "common", "types", "helpers", "helper", "misc", "base", "shared", "lib"}
	documented := map[string]bool{}
	sources(t, func(rel string, _ *token.FileSet, file *ast.File) {
		dir := path.Dir(rel)
		if slices.Contains(forbidden, file.Name.Name) {
			t.Errorf("%s: package %s: a name that fits everything says nothing", rel, file.Name.Name)
		}
		if _, seen := documented[dir]; !seen {
			documented[dir] = false
		}
		if file.Doc != nil && len(file.Doc.Text()) > 60 {
			documented[dir] = true
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment that says what it owns", dir)
		}
	}
}

func TestFilesAndFunctionsStayShort(t *testing.T) {
	sources(t, func(rel string, set *token.FileSet, file *ast.File) {
		if n := set.Position(file.End()).Line; n > maxFile {
			t.Errorf("%s has %d lines; at most %d: split it by what it owns", rel, n, maxFile)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil || strings.HasSuffix(rel, "_test.go") {
				continue
			}
			n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1 - tableLines(set, fn)
			if n > maxFunction {
				t.Errorf("%s: %s has %d lines; at most %d", rel, fn.Name.Name, n, maxFunction)
			}
		}
	})
}

// tableLines counts the lines of the largest literal of a function.
func tableLines(set *token.FileSet, fn *ast.FuncDecl) int {
	most := 0
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if l, ok := n.(*ast.CompositeLit); ok {
			most = max(most, set.Position(l.End()).Line-set.Position(l.Pos()).Line)
		}
		return true
	})
	return most
}

func TestNoInitAndNothingThatCallsIt(t *testing.T) {
	sources(t, func(rel string, _ *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: what runs is said where it is wired", rel)
			}
		}
	})
}

// Packages that start goroutines show in their tests that none is left behind.
func TestPackagesWithGoroutinesLookForLeaks(t *testing.T) {
	starts, looks := map[string]string{}, map[string]bool{}
	sources(t, func(rel string, _ *token.FileSet, file *ast.File) {
		dir := path.Dir(rel)
		if strings.HasSuffix(rel, "_test.go") {
			looks[dir] = looks[dir] || slices.Contains(importsOf(file), "go.uber.org/goleak")
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				starts[dir] = rel
			}
			return true
		})
	})
	for dir, file := range starts {
		// Processes of their own, whose end is seen by others.
		if strings.HasPrefix(dir, "test") || dir == "cmd/hallway/internal/demo" {
			continue
		}
		if !looks[dir] {
			t.Errorf("%s starts goroutines (%s) and no test of it uses goleak", dir, file)
		}
	}
}

func TestEveryDependencyIsExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"go.mod", "firmware/pack/go.mod"} {
		mod, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(mod)) {
			f := strings.Fields(line)
			if len(f) < 2 || !strings.HasPrefix(f[1], "v") || !strings.Contains(f[0], ".") || strings.Contains(line, "// indirect") || f[0]+"/" == module {
				continue
			}
			if !strings.Contains(string(text), "`"+f[0]+"`") {
				t.Errorf("docs/dependencies.md does not say what %s of %s is for, why it and what was rejected", f[0], file)
			}
		}
	}
}
