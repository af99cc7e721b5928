// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUntouchedFileRanges keeps the pages that a dynamic loader has written: without them the process would crash.
func TestUntouchedFileRanges(t *testing.T) {
	smaps := `00400000-0048a000 r-xp 00000000 fe:01 10 /usr/bin/pinnace
Size:                552 kB
Rss:                 500 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
0048a000-0049a000 r--p 0008a000 fe:01 10 /usr/bin/pinnace
Rss:                  64 kB
Anonymous:             4 kB
0049a000-004aa000 rw-p 0009a000 fe:01 10 /usr/bin/pinnace
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:          1024 kB
7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`
	want := [][2]uintptr{{0x400000, 0x48a000}}
	if diff := cmp.Diff(want, untouchedFileRanges(smaps)); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

// TestReturnOwnFilePages sees that this very process lives on.
func TestReturnOwnFilePages(t *testing.T) {
	if err := ReturnOwnFilePages(); err != nil {
		t.Fatal(err)
	}
}
