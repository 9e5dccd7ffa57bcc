//go:build !unix

package plainfile

import "io/fs"

// There is no such choice here.
const noWait, noFollow = 0, 0

var linked = fs.ErrInvalid
