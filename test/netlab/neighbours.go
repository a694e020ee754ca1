package netlab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// neighbours is how many link-layer addresses the kernel may know. All hosts share one
// table: in a home of 64 on one bridge they come to 8,000, and where it is full (Linux
// begins with 1,024) packets are dropped without a word.
const neighbours = 32768

// makeRoom raises the bounds of that table where they are lower. Where it may not, a lab
// of many hosts loses packets; small ones are well without.
func makeRoom() {
	for _, family := range []string{"ipv4", "ipv6"} {
		for i, n := range []int{neighbours / 4, neighbours / 2, neighbours} {
			file := fmt.Sprintf("/proc/sys/net/%s/neigh/default/gc_thresh%d", family, i+1)
			b, err := os.ReadFile(file)
			if now, bad := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && bad == nil && now < n {
				_ = os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644) //nolint:gosec // a file of the kernel
			}
		}
	}
}
