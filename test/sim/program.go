package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Op is one kind of thing that happens to a home.
type Op string

// What happens. A step that does not fit the moment (start a node that runs, ask one
// that does not) is left out, so that any part of a program is a program.
const (
	OpPublish Op = "publish" // A writes its record of kind B
	OpAppend  Op = "append"  // A adds an entry to its log
	OpAdmit   Op = "admit"   // A admits B as a device
	OpRemove  Op = "remove"  // A removes B
	OpRename  Op = "rename"  // A gives B a new name
	OpRoom    Op = "room"    // A makes a room
	OpBoth    Op = "both"    // A and node 0 rename B, and make rooms, at the same moment
	OpCut     Op = "cut"     // the nodes of the set B no longer hear the others
	OpHeal    Op = "heal"    // all hear all
	OpKill    Op = "kill"    // A's process is killed
	OpKillAt  Op = "kill-at" // A is killed at its B-th write point from now
	OpPower   Op = "power"   // A's machine loses power, silently
	OpStart   Op = "start"   // A starts again
	OpCopy    Op = "copy"    // A's store is copied
	OpOld     Op = "old"     // A starts again with the last copy: the tail is lost
	OpClock   Op = "clock"   // A's wall clock jumps by B hours
	OpWeather Op = "weather" // delays up to A ms, B % loss
	OpForge   Op = "forge"   // the hostile member attacks A by means B
	OpKnock   Op = "knock"   // a stranger, and every removed key, knocks at A
	OpNothing Op = "nothing" // time passes

	OpPromote    Op = "promote"    // A makes B an owner
	OpOust       Op = "oust"       // A has B removed: alone, as second owner, or by proposing it
	OpLie        Op = "lie"        // A claims that it proposed B's removal a day ago
	OpDay        Op = "day"        // a day passes by all clocks
	OpRecover    Op = "recover"    // A becomes an owner by the recovery code and removes B
	OpCheckpoint Op = "checkpoint" // A makes a checkpoint if all owners say that they agree
	OpApart      Op = "apart"      // A makes one without asking
	OpMove       Op = "move"       // A, and B too, have new addresses
	OpSwap       Op = "swap"       // A and B have each other's address
	OpBlind      Op = "blind"      // from now on multicast tells of nobody who moved
)

// Step is one line of a program.
type Step struct {
	Op   Op
	A, B int
	Wait time.Duration // that passes before the next
}

// Program is what happens to one home. Node 0 makes it.
type Program struct {
	Seed   uint64
	Nodes  int
	Start  int   // nodes 0 to Start-1 belong from the beginning
	Owners int   // nodes 0 to Owners-1 are owners
	Perm   []int // which key of the pool each node has, so that any may have the lowest ID
	Steps  []Step
}

// hostile is the last node of a program: a real member without a mesh that forges.
func (p Program) hostile() int { return p.Nodes - 1 }

// String gives a program as Go would write it, for a regression test.
func (p Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes, %d at first, %d of them owners, keys %v, the last one hostile\n", p.Seed, p.Nodes, p.Start, p.Owners, p.Perm)
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "  {%q, %d, %d, %d * time.Millisecond},\n", s.Op, s.A, s.B, s.Wait.Milliseconds())
	}
	return b.String()
}

// Generate makes the program of a seed.
func Generate(seed uint64) Program {
	r := rand.New(rand.NewPCG(seed, 1))
	p := Program{Seed: seed, Nodes: 4 + r.IntN(4)}
	p.Start = 3 + r.IntN(p.Nodes-3)
	p.Owners = 2 + r.IntN(min(3, p.Start-1))
	p.Perm = r.Perm(poolSize)[:p.Nodes]
	for range 10 + r.IntN(14) {
		p.Steps = append(p.Steps, p.step(r)...)
	}
	return p
}

// step draws what happens next: a step, or a few that only make sense together.
func (p Program) step(r *rand.Rand) []Step {
	wait := func() time.Duration {
		if r.IntN(3) == 0 {
			return time.Duration(r.IntN(50)) * time.Millisecond
		}
		return time.Duration(r.IntN(3000)) * time.Millisecond
	}
	any, owner := r.IntN(p.Nodes), r.IntN(p.Owners)
	one := func(op Op, a, b int) Step { return Step{op, a, b, wait()} }
	switch r.IntN(33) {
	case 0, 1, 2:
		return []Step{one(OpPublish, any, r.IntN(kinds))}
	case 3:
		var out []Step
		for range 3 + r.IntN(6) {
			out = append(out, Step{[]Op{OpPublish, OpAppend}[r.IntN(2)], r.IntN(p.Nodes), r.IntN(kinds), 0})
		}
		return append(out, one(OpNothing, 0, 0))
	case 4, 5:
		return []Step{one(OpAdmit, owner, any)}
	case 6:
		return []Step{one(OpRemove, owner, any)}
	case 7:
		return []Step{one(OpRename, owner, any)}
	case 8:
		return []Step{one(OpBoth, 1+r.IntN(p.Owners-1), any)}
	case 9:
		return []Step{one(OpRoom, owner, 0)}
	case 10, 11:
		return []Step{one(OpCut, 0, 1+r.IntN(1<<p.Nodes-2))}
	case 12:
		return []Step{one(OpHeal, 0, 0)}
	case 13:
		return []Step{one([]Op{OpKill, OpPower}[r.IntN(2)], any, 0), one(OpStart, any, 0)}
	case 14:
		return []Step{one(OpKillAt, any, 1+r.IntN(6)), one(OpPublish, any, r.IntN(kinds)), one(OpNothing, 0, 0), one(OpStart, any, 0)}
	case 15, 16:
		return []Step{one(OpCopy, any, 0), one(OpPublish, any, r.IntN(kinds)), one([]Op{OpPublish, OpAppend}[r.IntN(2)], any, r.IntN(kinds)), one(OpKill, any, 0), one(OpOld, any, 0)}
	case 21:
		return []Step{one(OpClock, any, r.IntN(400_000)-200_000)}
	case 17:
		return []Step{one(OpWeather, 1+r.IntN(200), r.IntN(20))}
	case 18:
		return []Step{one(OpForge, any, r.IntN(forgeries))}
	case 19, 20: // an owner who does not hear that it was removed, and one who carries on what it does
		o, carrier := 1+r.IntN(p.Owners-1), 1+r.IntN(p.Nodes-2)
		last := one([]Op{OpAdmit, OpRename, OpRemove}[r.IntN(3)], o, any)
		return []Step{one(OpCut, 0, 1<<o|1<<carrier), one(OpRoom, 0, 0), one(OpRemove, 0, o), last, one(OpRoom, o, 0), one(OpHeal, 0, 0)}
	case 22: // a member that contradicts itself
		return []Step{one(OpForge, any, 3), one(OpForge, r.IntN(p.Nodes), 3)}
	case 23, 24, 25, 26:
		return p.disputes(r, wait)
	case 27, 28, 29:
		return p.compacts(r, wait)
	case 30:
		return []Step{one([]Op{OpMove, OpSwap}[r.IntN(2)], any, r.IntN(p.Nodes))}
	case 31:
		return []Step{one(OpBlind, 0, 0), one([]Op{OpMove, OpSwap}[r.IntN(2)], any, r.IntN(p.Nodes)), one(OpNothing, 0, 0)}
	default:
		return []Step{one(OpKnock, any, 0)}
	}
}

// disputes draws what owners do to each other.
func (p Program) disputes(r *rand.Rand, wait func() time.Duration) []Step {
	one := func(op Op, a, b int) Step { return Step{op, a, b, wait()} }
	day := Step{OpDay, 0, 0, clocksTold}
	any, a, b, c := r.IntN(p.Nodes), r.IntN(p.Owners), r.IntN(p.Owners), r.IntN(p.Owners)
	apart, carrier := 1<<r.IntN(p.Nodes)|1<<b, 1<<r.IntN(p.Nodes)
	switch r.IntN(8) {
	case 0, 1: // two owners remove a third, who may be their maker and hear nothing of it
		return []Step{one(OpCut, 0, 1<<c|carrier), one(OpOust, a, c), one(OpOust, b, c), one(OpRoom, c, 0), one(OpRemove, c, any), one(OpHeal, 0, 0)}
	case 2:
		return []Step{one(OpOust, a, c), one(OpOust, b, c), one(OpRoom, c, 0)}
	case 3: // one alone, after a day or not
		steps := []Step{one(OpOust, a, c), day, one(OpOust, a, c), one(OpRoom, c, 0), day}
		return steps[r.IntN(2) : 3+r.IntN(3)]
	case 4:
		return []Step{one(OpLie, a, c), one(OpRoom, c, 0)}
	case 5: // each removes the other
		return []Step{one(OpCut, 0, apart), one(OpOust, a, b), one(OpOust, b, a), one(OpOust, c, a), one(OpHeal, 0, 0)}
	case 6: // the recovery code puts an owner out who hears nothing of it
		return []Step{one(OpCut, 0, 1<<c|carrier), one(OpRecover, any, c), one(OpRoom, c, 0), one(OpAdmit, c, r.IntN(p.Nodes)), one(OpRemove, c, any), one(OpHeal, 0, 0)}
	default: // a tree of owners
		return []Step{one(OpPromote, a, any), one(OpPromote, any, r.IntN(p.Nodes))}
	}
}

// compacts draws checkpoints and what is done beside them.
func (p Program) compacts(r *rand.Rand, wait func() time.Duration) []Step {
	one := func(op Op, a, b int) Step { return Step{op, a, b, wait()} }
	any, a, b := r.IntN(p.Nodes), r.IntN(p.Owners), r.IntN(p.Owners)
	cut := one(OpCut, 0, 1<<b|1<<r.IntN(p.Nodes))
	switch r.IntN(6) {
	case 5: // a maker and whom it made are no two, also after a checkpoint
		return []Step{one(OpPromote, b, any), one(OpApart, a, 0), one(OpOust, b, 0), one(OpOust, any, 0)}
	case 0:
		return []Step{one(OpCheckpoint, any, 0), one(OpRoom, b, 0)}
	case 1: // it asks, and some do not answer
		return []Step{cut, one(OpRoom, b, 0), {OpNothing, 0, 0, foreknown}, one(OpCheckpoint, a, 0), one(OpHeal, 0, 0)}
	case 2: // it does not ask
		return []Step{cut, one(OpRoom, b, 0), one(OpAdmit, b, any), one(OpApart, a, 0), one(OpRoom, a, 0), one(OpHeal, 0, 0)}
	case 3: // two at once
		return []Step{cut, one(OpApart, a, 0), one(OpRoom, b, 0), one(OpApart, b, 0), one(OpRename, b, any), one(OpHeal, 0, 0)}
	default:
		return []Step{one(OpKillAt, any, 1+r.IntN(4)), one(OpApart, any, 0), one(OpNothing, 0, 0), one(OpStart, any, 0)}
	}
}

// Shrink takes steps out of a failing program as long as it still fails, trying at most
// tries programs.
func Shrink(p Program, tries int, fails func(Program) bool) Program {
	for size := len(p.Steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(p.Steps) && tries > 0; tries-- {
			q := p
			q.Steps = append(append([]Step{}, p.Steps[:at]...), p.Steps[at+size:]...)
			if fails(q) {
				p = q
			} else {
				at += size
			}
		}
	}
	return p
}
