package sim

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutant is a broken rule of merging: in the file, old (which is there once) becomes new.
type mutant struct {
	name, file, old, new string
}

func mutants() []mutant {
	return []mutant{
		{"an older record wins", "devices/records/record.go", "if c > 0 {", "if c < 0 {"},
		{"of a contradiction each keeps what it heard last", "devices/records/record.go", "return equivocation, bytes.Compare(next.hash[:], old.hash[:]) < 0", "return equivocation, bytes.Compare(next.hash[:], old.hash[:]) != 0"},
		{"a removed key comes back", "devices/trust/effect.go", "case f.r.Removed[id]:", "case f.r.Removed[id] && false:"},
		{"a removed owner goes on editing", "devices/trust/effect.go", "if f.cut[en.hash] {", "if f.cut[en.hash] && false {"},
		{"recovery does not cut the owners it removes", "devices/trust/settle.go", "for i, p := range s.inForce {", "for i, p := range s.inForce {\nif p.root {\ncontinue\n}"},
		{"one owner alone removes another of a different branch", "devices/trust/entitled.go", "if len(common(family, chain)) == len(family) {", "if len(common(family, chain)) <= len(family) {"},
		{"a lone owner's removal has force at once", "devices/trust/wait.go", "\tif !ripe(at, dated, now, ok) {", "\tif !ripe(at, dated, now, ok) && false {"},
		{"a checkpoint is made while an owner is away", "devices/overlay/share.go", "if f == nil {\n\t\treturn false", "if f == nil {\n\t\treturn true"},
		{"the first of two checkpoints stays", "devices/trust/merge.go", "b != nil && l.base.yields(b.last)", "b != nil && l.base == nil"},
		{"what a checkpoint ended is not named", "devices/trust/compact.go", "out[:min(len(out), maxBeside)]", "out[:0]"},
		{"a checkpoint forgets who was removed", "devices/trust/state.go", "f.r.Removed[x.Node] = true", "f.r.Removed[x.Node] = false"},
		{"a checkpoint forgets who made whom an owner", "devices/trust/state.go", "x.Makers = chain[:len(chain)-1]", "x.Makers = nil"},
		{"a moved node's old address is kept for ever", "devices/overlay/peers.go", "p.own = d.Addrs[:min(len(d.Addrs), maxAddrs)]", "p.own = append(p.own, d.Addrs...)[:1]"},
		{"concurrent edits count in the order they came", "devices/trust/fold.go", "compareHash(q[i].hash, q[j].hash)) < 0", "0*compareHash(q[i].hash, q[j].hash)) < 0"},
	}
}

// Each broken rule is caught within 100 seeds. The code is replaced by `go test
// -overlay`; the tree stays as it is.
func TestSim_BrokenRuleIsCaught(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			file := filepath.Join(root, filepath.FromSlash(m.file))
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(code, []byte(m.old)); n != 1 {
				t.Fatalf("%s holds %q %d times; the mutant must be told where the rule is now", m.file, m.old, n)
			}
			dir := t.TempDir()
			changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
			replace, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(changed, bytes.Replace(code, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(list, replace, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", list, "-count=1", "-timeout", "5m", "-run", "^TestSim_Seeds$", "./test/sim")
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "HALLWAY_SIM_SEEDS=100", "HALLWAY_SIM_FIRST=1", "HALLWAY_SIM_SEED=", "HALLWAY_SIM_SHRINK=", "CGO_ENABLED=0")
			out, err := cmd.CombinedOutput()
			broken := regexp.MustCompile(`rule broken: [^\n]*`).Find(out)
			if err == nil || broken == nil {
				t.Fatalf("100 seeds notice nothing, or something else: %s", out)
			}
			t.Logf("%s; %s", broken, regexp.MustCompile(`seed \d+`).Find(out))
		})
	}
}
