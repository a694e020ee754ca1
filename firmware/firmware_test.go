package firmware

import (
	"slices"
	"testing"
)

func TestTargets(t *testing.T) {
	seen := map[string]bool{}
	for _, x := range Targets() {
		if seen[x.Name] || x.Budget < MiB || !slices.Contains(x.BuildEnv(), "CGO_ENABLED=0") {
			t.Errorf("%+v", x)
		}
		seen[x.Name] = true
		if x.Check(x.Budget) != nil || x.Check(x.Budget+1) == nil {
			t.Errorf("%s: the budget is not kept", x.Name)
		}
	}
}
