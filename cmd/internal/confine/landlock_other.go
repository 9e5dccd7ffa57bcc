//go:build !linux

package confine

// Supported says that there is no Landlock here.
func Supported() int { return 0 }

// To does nothing here.
func To(Files) error { return nil }

func mounted(string) bool { return false }
