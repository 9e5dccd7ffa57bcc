package schedule

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// jitterPart is the part of its interval that a beat may be moved, either way.
const jitterPart = 5

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// beats are the times of one check, counted from the start of the runner.
type beats struct {
	interval time.Duration
	phase    time.Duration // of the interval, before jitter
	group    uint64        // those who share it are jittered as one
	k        int64         // number of the beat that is next
}

// at is beat k: on the line between the knots k and k+1 of the group's jitter,
// as far along it as the phase is along the interval.
func (b *beats) at(k int64) time.Duration {
	f := float64(b.phase) / float64(b.interval)
	j := (1-f)*knot(b.group, k) + f*knot(b.group, k+1)
	return b.phase + time.Duration(k)*b.interval + time.Duration(j/jitterPart*float64(b.interval))
}

// first gives the time of the first run, at or after now and within short. It
// takes the place of the last beat that is not half an interval after it.
func (b *beats) first(now, short time.Duration) time.Duration {
	f := float64(b.phase) / float64(b.interval)
	t := now + mod(time.Duration(f*float64(short))-now, short)
	b.k = int64((t+b.interval/2-b.phase+b.interval-1)/b.interval) - 1
	return t
}

// next is the first beat after t that has not been, and how many it passes over.
func (b *beats) next(t time.Duration) (at time.Duration, skipped int64) {
	k := max(b.k, int64((t-b.phase)/b.interval))
	for at = b.at(k); at <= t; at = b.at(k) {
		k++
	}
	skipped, b.k = k-b.k, k
	return at, skipped
}

// spread finds n phases in an interval beside those taken: evenly from base
// where none are, else each in the middle of the widest gap.
func spread(taken []time.Duration, n int, base, interval time.Duration) []time.Duration {
	phases := make([]time.Duration, 0, n)
	if len(taken) == 0 {
		for i := range n {
			phases = append(phases, mod(base+time.Duration(float64(i)/float64(n)*float64(interval)), interval))
		}
		return phases
	}
	taken = slices.Clone(taken)
	slices.Sort(taken)
	for range n {
		last := len(taken) - 1
		at, widest := last, taken[0]+interval-taken[last]
		for i := range last {
			if gap := taken[i+1] - taken[i]; gap > widest {
				at, widest = i, gap
			}
		}
		phase := taken[at] + widest/2
		if phase < interval {
			taken = slices.Insert(taken, at+1, phase)
		} else {
			phase -= interval
			taken = slices.Insert(taken, 0, phase)
		}
		phases = append(phases, phase)
	}
	return phases
}

// takeTurns puts the checks of a group in the stable order of their beats: those of
// one kind by a hash of their IDs, and each kind evenly among all. A block that
// strikes one kind alone would else find it bunched by chance.
func takeTurns(ids []string, kind func(id string) string) {
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(hash(a), hash(b)), cmp.Compare(a, b)) })
	of := map[string]int{}
	for _, id := range ids {
		of[kind(id)]++
	}
	place, seen := map[string]float64{}, map[string]int{}
	for _, id := range ids {
		k := kind(id)
		place[id] = (float64(seen[k]) + float64(hash(k)>>11)/(1<<53)) / float64(of[k])
		seen[k]++
	}
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(place[a], place[b]) })
}

// knot is knot k of a group's jitter, in [-1, 1).
func knot(group uint64, k int64) float64 {
	return float64(mix(group+uint64(k)*0x9e3779b97f4a7c15)>>11)/(1<<52) - 1
}

// hash is the same in every run of the program, as hash/maphash is not.
func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return mix(h.Sum64())
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood, "Fast
// splittable pseudorandom number generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// mod is a modulo b, never negative.
func mod(a, b time.Duration) time.Duration { return (a%b + b) % b }
