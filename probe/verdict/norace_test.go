//go:build !race

package verdict

// raced says that the race detector makes everything ten times slower.
const raced = false
