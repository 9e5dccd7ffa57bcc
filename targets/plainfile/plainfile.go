// Package plainfile opens the files that a configuration names. What stands at
// a path may be no file: a FIFO that nobody writes to would be waited for, a
// device never ends. Both are errors here, at once.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Open opens a regular file to be read. Symbolic links are followed: a mounted
// configuration is often made of them.
func Open(name string) (*os.File, error) { return open(name, os.O_RDONLY, 0) }

// Read is the whole of a regular file of at most that many bytes.
func Read(name string, most int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: larger than %d bytes", name, most)
	}
	return b, err
}

// Own opens, or makes, a file of the program's own, as [os.OpenFile] does. A
// symbolic link in its place is not followed: who may write into the folder
// would choose what the program writes to.
func Own(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := open(name, flag|noFollow, perm)
	if errors.Is(err, linked) {
		return nil, fmt.Errorf("%s: is a symbolic link, which is not followed here", name)
	}
	return f, err
}

func open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag|noWait, perm)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s: not a regular file", name))
	}
	return f, nil
}
