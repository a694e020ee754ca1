package agent

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// memoryShare of a cgroup's limit is for the Go runtime; the rest is for sockets' buffers,
// stacks of threads and the pages of the program itself, which the kernel counts too.
const memoryShare = 0.75

// memoryLimit is what the runtime should stay under, in bytes, so that it collects harder
// instead of being killed: a share of the smallest limit of this process's memory cgroup and of
// those around it (cgroup v2 memory.max, v1 memory.limit_in_bytes), or 0 without one. root is the
// root of the file system. A container may show its own group as the root of the mount
// while /proc names the host's path; walking up to the root finds it there.
func memoryLimit(root fs.FS) int64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	limit := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path, cgroups(7)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0":
			limit = min(limit, smallest(root, "sys/fs/cgroup", f[2], "memory.max"))
		case f[1] == "memory":
			limit = min(limit, smallest(root, "sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes"))
		}
	}
	if limit > 1<<50 { // v1 says "none" by a number that no machine has
		return 0
	}
	return int64(float64(limit) * memoryShare)
}

// smallest limit from a group up to the root of its mount.
func smallest(root fs.FS, mount, group, file string) int64 {
	limit := int64(math.MaxInt64)
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		if b, err := fs.ReadFile(root, path.Join(mount, group, file)); err == nil {
			if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && v > 0 { // "max" is none
				limit = min(limit, v)
			}
		}
		if group == "/" {
			return limit
		}
	}
}
