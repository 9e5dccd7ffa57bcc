//go:build race

package verdict

const raced = true
