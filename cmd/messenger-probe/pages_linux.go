package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// ownPages is the program's own file and where it is mapped, read-only.
type ownPages struct {
	file *os.File // until the first release
	maps []struct{ from, to uintptr }
}

// findOwnPages reads /proc/self/maps (proc(5)). It finds nothing where it cannot.
func findOwnPages() *ownPages {
	p := &ownPages{}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return p
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return p
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		var rights string
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err == nil && strings.HasSuffix(line, " "+self) && !strings.Contains(rights, "w") {
			p.maps = append(p.maps, struct{ from, to uintptr }{from, to})
		}
	}
	// Now, since the agent will not be allowed to: see package confine.
	if p.file, err = os.Open(self); err != nil {
		p.file = nil
	}
	return p
}

// release gives back what the start alone needed: some 10 MB of the program's
// file, and the first time the garbage. What of the file is needed again comes
// back by itself (MADV_DONTNEED of a private mapping of a file).
//
// Linux keeps a file in the page cache in pieces as large as it was read in, and
// since 6.18 maps a whole piece for one byte of it. So the first time the pieces
// are dropped (POSIX_FADV_DONTNEED), and no more is read than is needed
// (MADV_RANDOM, MADV_NOHUGEPAGE).
func (p *ownPages) release() {
	p.advise(unix.MADV_DONTNEED)
	if p.file == nil {
		return
	}
	p.advise(unix.MADV_RANDOM)
	p.advise(unix.MADV_NOHUGEPAGE)
	unix.Fadvise(int(p.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	p.file.Close()
	p.file = nil
	debug.FreeOSMemory()
}

// advise is madvise(2). It is advice: that a kernel does not take it is no error.
func (p *ownPages) advise(how int) {
	for _, m := range p.maps {
		unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, uintptr(how))
	}
}
