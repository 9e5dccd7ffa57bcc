// Package spelling finds the word that was meant.
package spelling

import "strings"

// longest is the longest word that is looked at, in bytes.
const longest = 64

// Nearest is the word of known that is at most two letters away from word, and
// half of it, whatever the case; "" if there is none. Of several it is
// the first of the nearest.
func Nearest(word string, known []string) string {
	best, least := "", min(2, len(word)/2)+1
	for _, w := range known {
		if n := edits(strings.ToLower(word), strings.ToLower(w)); n < least {
			best, least = w, n
		}
	}
	return best
}

// edits is how many letters must be put in, left out, replaced, or swapped with
// their neighbour to make b of a. A word that is too long is as far as can be.
func edits(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return longest
	}
	var d [longest + 1][longest + 1]int
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			if i == 0 || j == 0 {
				d[i][j] = i + j
				continue
			}
			n := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				n++
			}
			d[i][j] = min(n, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
