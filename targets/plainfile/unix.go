//go:build unix

package plainfile

import "syscall"

const (
	noWait   = syscall.O_NONBLOCK // for a FIFO's other end; regular files do not care
	noFollow = syscall.O_NOFOLLOW
	linked   = syscall.ELOOP // what noFollow says of a link
)
