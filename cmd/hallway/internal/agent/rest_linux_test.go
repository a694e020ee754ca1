package agent

import (
	"slices"
	"testing"
)

func TestOnlyWhatNobodyWroteIsGivenUp(t *testing.T) {
	maps := `00400000-00b46000 r-xp 00000000 00:1f 123                                /usr/bin/hallway
00b46000-0125f000 r--p 00746000 00:1f 123                                /usr/bin/hallway
0125f000-012d0000 rw-p 00e5f000 00:1f 123                                /usr/bin/hallway
012d0000-01331000 rw-p 00000000 00:00 0
c000000000-c000400000 rw-p 00000000 00:00 0
7f0000000000-7f0000008000 r--s 00000000 00:1f 7                          /var/lib/hallway/hallway.db
7f0000010000-7f0000020000 r--p 00000000 00:1f 9                          /usr/lib/other
7ffd0000-xyz r--p 00000000 00:1f 123                                     /usr/bin/hallway
`
	want := []mapping{{0x400000, 0xb46000}, {0xb46000, 0x125f000}}
	if got := readOnly(maps, "/usr/bin/hallway"); !slices.Equal(got, want) {
		t.Errorf("%x", got)
	}
	giveBack() // the test itself must survive it
}
