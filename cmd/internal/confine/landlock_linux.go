package confine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Supported is the version of Landlock's interface that this kernel has and
// lets this process use; 0 none.
func Supported() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

const (
	reading landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	writing landlock.AccessFSSet = reading | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile
	file    landlock.AccessFSSet = ll.AccessFSReadFile
)

// To gives up, for all threads and for good: every file but these, running
// programs, listening on TCP anew, signals to others, others' Unix sockets; as
// much of it as this kernel knows.
func To(f Files) error {
	var rules []landlock.Rule
	allow := func(path string) {
		fi, err := os.Stat(path)
		if errors.Is(err, fs.ErrPermission) {
			return // a home of somebody else's: nothing there can be read anyway
		}
		if err == nil && !fi.IsDir() {
			rules = append(rules, landlock.PathAccess(file, path).IgnoreIfMissing())
		} else {
			rules = append(rules, landlock.PathAccess(reading, path).IgnoreIfMissing())
		}
	}
	for _, path := range f.Fixed {
		allow(path)
	}
	for _, path := range f.Read {
		for _, p := range places(path) {
			allow(p)
		}
	}
	for _, path := range f.Write {
		rules = append(rules, landlock.PathAccess(writing, path).IgnoreIfMissing())
	}
	c := landlock.V9
	c.HandledAccessNet = ll.AccessNetBindTCP // it may connect to wherever it is told
	return c.BestEffort().Restrict(rules...)
}

// mounted says that a file is a mount of its own: then it stays what it is.
func mounted(path string) bool {
	var f, d syscall.Stat_t
	return syscall.Lstat(path, &f) == nil && f.Mode&syscall.S_IFMT == syscall.S_IFREG &&
		syscall.Stat(filepath.Dir(path), &d) == nil && f.Dev != d.Dev
}
