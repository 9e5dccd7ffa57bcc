// Package confine lets the process give up the files of others, for good: what
// a hostile server might make of a defect then finds nothing to read, nothing to
// write and nothing to run. It is Linux's Landlock (since 5.13), which needs no
// privilege; elsewhere there is no such thing, and nothing changes.
package confine

import (
	"os"
	"path/filepath"
	"slices"
)

// Files is what stays open to the process. What does not exist, or lies where the
// process may not look, is passed over.
type Files struct {
	// Read is files, and folders with all below. Of a file it is its folder that
	// stays open, and the folder of each symbolic link on the way to it: editors,
	// and who mounts configurations, put a new file in the place of the old one.
	Read []string
	// Fixed is files and folders that nobody replaces, and so they alone.
	Fixed []string
	// Write is folders whose files may be made, written, renamed and removed.
	Write []string
}

// places is what must be open for the file or folder at path to be read, now
// and after it was replaced.
func places(path string) (dirs []string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	for range 40 { // as the kernel, against loops
		fi, err := os.Lstat(path)
		if err == nil && fi.IsDir() {
			return append(dirs, append([]string{path}, linked(path)...)...)
		}
		if err == nil && mounted(path) {
			return append(dirs, path)
		}
		dirs = append(dirs, filepath.Dir(path))
		if err != nil || fi.Mode()&os.ModeSymlink == 0 {
			return dirs
		}
		to, err := os.Readlink(path)
		if err != nil {
			return dirs
		}
		if !filepath.IsAbs(to) {
			// What is above a link to a folder is not what is written above it.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return dirs
			}
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return dirs
}

// linked is the places of what a folder's own links lead to.
func linked(dir string) (dirs []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries[:min(len(entries), 1000)] {
		if e.Type()&os.ModeSymlink == 0 {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if to, err := filepath.EvalSymlinks(name); err == nil && filepath.Dir(to) != dir {
			if fi, err := os.Stat(to); err == nil && fi.Mode().IsRegular() {
				dirs = append(dirs, filepath.Dir(to))
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Resolver is what the system's resolver and Go's own read. resolv.conf is
// mostly a link to a file elsewhere, or mounted; only where it is a file of /etc
// like others must all of /etc stay open, since it is replaced there.
func Resolver(conf string) Files {
	f := Files{Fixed: []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/mdns.allow"}}
	if fi, err := os.Lstat(conf); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		if to, err := filepath.EvalSymlinks(conf); err == nil {
			f.Read = append(f.Read, to)
			return f
		}
	}
	f.Read = append(f.Read, conf)
	return f
}

// Machine is where the kernel tells of the process, the routes and what else
// runs.
func Machine() Files {
	return Files{Fixed: []string{"/proc", "/sys/class/net", "/sys/devices/virtual/net"}, Read: faces()}
}

// faces is where /sys tells of this machine's network cards.
func faces() (dirs []string) {
	all, _ := filepath.Glob("/sys/class/net/*")
	for _, link := range all {
		if to, err := filepath.EvalSymlinks(link); err == nil {
			dirs = append(dirs, to)
		}
	}
	return dirs
}

// And is both.
func (f Files) And(g Files) Files {
	return Files{slices.Concat(f.Read, g.Read), slices.Concat(f.Fixed, g.Fixed), slices.Concat(f.Write, g.Write)}
}
