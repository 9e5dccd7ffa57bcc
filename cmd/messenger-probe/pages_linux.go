package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ownPages is where the program's own file is mapped, read-only.
type ownPages []struct{ from, to uintptr }

// findOwnPages reads /proc/self/maps (proc(5)). It finds nothing where it cannot.
func findOwnPages() (pages ownPages) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		var rights string
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err == nil && strings.HasSuffix(line, " "+self) && !strings.Contains(rights, "w") {
			pages = append(pages, struct{ from, to uintptr }{from, to})
		}
	}
	return pages
}

// release gives back those pages: some 10 MB of the program are needed at its
// start alone. What is needed again comes back by itself, from the file or the
// page cache (madvise(2), MADV_DONTNEED of a private mapping of a file).
func (p ownPages) release() {
	for _, m := range p {
		syscall.Syscall(syscall.SYS_MADVISE, m.from, m.to-m.from, syscall.MADV_DONTNEED)
	}
}
