// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReadings(t *testing.T) {
	total, available, err := Memory()
	if err != nil || total <= 0 || available <= 0 || available > total {
		t.Errorf("memory: %d of %d, %v", available, total, err)
	}
	used, most, err := PIDs()
	if err != nil || used <= 0 || used > most {
		t.Errorf("process IDs: %d of %d, %v", used, most, err)
	}
	disk, err := FileSystemOf(t.TempDir())
	if err != nil || disk.Size <= 0 || disk.Free > disk.Size || disk.InodesFree > disk.Inodes {
		t.Errorf("file system: %+v, %v", disk, err)
	}
	for size, bytes := range HugePages() {
		if size <= 0 || bytes%size != 0 {
			t.Errorf("huge pages of %d bytes: %d bytes", size, bytes)
		}
	}
}

func TestDiskUsageCountsEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "sub", "b")); err != nil {
		t.Fatal(err)
	}
	bytes, inodes, err := DiskUsage(dir)
	if err != nil || bytes < 1<<20 || bytes > 1<<20+64<<10 || inodes != 3 {
		t.Errorf("%d bytes, %d files, %v", bytes, inodes, err)
	}
	if bytes, inodes, err := DiskUsage(filepath.Join(dir, "none")); err != nil || bytes+inodes != 0 {
		t.Errorf("a folder that isn't there: %d bytes, %d files, %v", bytes, inodes, err)
	}
}
