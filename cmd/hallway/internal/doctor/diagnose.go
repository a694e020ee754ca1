package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
)

// Diagnose says leg by leg why a call fails, and in one sentence whether it can be made.
// It is pure: equal facts give equal words.
func Diagnose(f Facts) api.Diagnosis {
	d := api.Diagnosis{From: f.From.Name, To: f.To}
	if f.Name != "" {
		d.To = f.Name
	}
	caller := named(LegCaller, judgeCaller(f.From))
	name := named(LegName, api.Check{Level: levelSkip, Words: cannotTry(LegCaller)})
	if f.From.Fault == "" {
		name = named(LegName, judgeName(f))
	}
	d.Legs = append(d.Legs, caller, name)
	if name.Level != levelOK { // nothing is behind the name: the other legs have no device
		for _, l := range legs() {
			d.Legs = append(d.Legs, named(l.name, api.Check{Level: levelSkip, Words: cannotTry(LegName)}))
		}
	}
	several := len(f.Devices) > 1
	var verdicts []verdict
	for _, c := range f.Devices {
		if name.Level != levelOK {
			break
		}
		mine := examine(c, several)
		d.Legs = append(d.Legs, mine...)
		verdicts = append(verdicts, judged(c, mine))
	}
	conclude(&d, caller, name, verdicts)
	return d
}

// examine judges the legs of one device.
func examine(c Callee, several bool) []api.Check {
	var out []api.Check
	level := map[string]string{}
	for _, l := range legsOf(c) {
		check := api.Check{}
		i := slices.IndexFunc(l.needs, func(n string) bool { return level[n] == levelFail || level[n] == levelSkip })
		if i >= 0 {
			check.Level, check.Words = levelSkip, cannotTry(l.needs[i])
		} else {
			check = l.judge(c)
		}
		level[l.name] = check.Level
		if several {
			check.Device = c.Slug
		}
		out = append(out, named(l.name, check))
	}
	return out
}

func named(name string, c api.Check) api.Check {
	c.Name = name
	return c
}

func cannotTry(because string) string {
	return fmt.Sprintf("could not be tried, because %q fails", because)
}

// verdict on one device: the first leg that fails, if any.
type verdict struct {
	name  string
	fails *api.Check
}

func judged(c Callee, checks []api.Check) verdict {
	for _, k := range checks {
		if k.Level == levelFail {
			return verdict{c.Name, &k}
		}
	}
	return verdict{name: c.Name}
}

// conclude writes the sentence. A name with several devices can be called when one of
// them can.
func conclude(d *api.Diagnosis, caller, name api.Check, verdicts []verdict) {
	cause := &caller
	if caller.Level != levelFail {
		cause = &name
	}
	var fine, not []string
	if cause.Level != levelFail {
		cause = nil
		for _, v := range verdicts {
			if v.fails == nil {
				fine = append(fine, v.name)
				continue
			}
			not = append(not, v.name)
			if cause == nil {
				cause = v.fails
			}
		}
	}
	if len(fine) > 0 {
		d.OK = true
		d.Words = fmt.Sprintf("%s can call %s.", d.From, d.To)
		if len(not) > 0 {
			d.Words += fmt.Sprintf(" Of its devices %s would ring, %s would not.", strings.Join(fine, ", "), strings.Join(not, ", "))
		}
		return
	}
	if cause == nil { // no device was examined, and nothing failed
		cause = &name
	}
	d.Cause, d.Advice = cause.Name, cause.Advice
	d.Words = fmt.Sprintf("%s cannot call %s: %s.", d.From, d.To, cause.Words)
}
