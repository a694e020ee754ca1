package agent

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	for name, x := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"no cgroups": {fstest.MapFS{}, 0},
		"v2": {fstest.MapFS{"proc/self/cgroup": file("0::/system.slice/hallway.service"),
			"sys/fs/cgroup/system.slice/hallway.service/memory.max": file("67108864")}, 48 << 20},
		"v2, the parent is smaller": {fstest.MapFS{"proc/self/cgroup": file("0::/a/b"),
			"sys/fs/cgroup/a/memory.max": file("67108864"), "sys/fs/cgroup/a/b/memory.max": file("max")}, 48 << 20},
		"v2, none": {fstest.MapFS{"proc/self/cgroup": file("0::/a"), "sys/fs/cgroup/a/memory.max": file("max")}, 0},
		"v1": {fstest.MapFS{"proc/self/cgroup": file("4:memory:/box\n3:cpu:/\n0::/"),
			"sys/fs/cgroup/memory/box/memory.limit_in_bytes": file("67108864")}, 48 << 20},
		"v1, none": {fstest.MapFS{"proc/self/cgroup": file("4:memory:/"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712")}, 0},
		"v1, a container that sees its group as the root": {fstest.MapFS{"proc/self/cgroup": file("4:memory:/docker/0123"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("67108864")}, 48 << 20},
		"garbage": {fstest.MapFS{"proc/self/cgroup": file("memory\n::\n0::../../x"), "sys/fs/cgroup/x/memory.max": file("-5")}, 0},
	} {
		if got := memoryLimit(x.root); got != x.want {
			t.Errorf("%s: %d, not %d", name, got, x.want)
		}
	}
}
