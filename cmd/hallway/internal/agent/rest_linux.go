package agent

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBack gives memory back to the system: of the heap, which the runtime by itself would
// keep for minutes, and of the program, most of which only starts it. Its pages stay in
// the page cache, where the system takes them at once if it needs them; what the agent
// still uses is mapped again at the next touch, without reading the disk.
func giveBack() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range readOnly(string(maps), program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED) // refused: then it stays
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// readOnly finds the mappings of a file that nobody can have written to (proc(5)): giving
// up a page of any other would lose what is in it.
func readOnly(maps, file string) []mapping {
	var out []mapping
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != file || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, strconv.IntSize)
		end, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
		if err1 == nil && err2 == nil && start < end {
			out = append(out, mapping{uintptr(start), uintptr(end)})
		}
	}
	return out
}
