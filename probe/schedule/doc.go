// Package schedule says when checks run. It knows time and order, and nothing
// of what a check asks or what its answer means.
//
// # Beats
//
// A check has a beat every interval. The checks of one messenger that share an
// interval are a group. They are spread evenly over the interval, in the order
// of a hash of their IDs, from a starting point that is a hash of the
// messenger's name: a restart keeps the order. The checks of one protocol are
// spread evenly among them. What strikes all of a messenger, or of a protocol, is
// so met by the first of n checks after interval/n, not after the interval; and
// the members of a pool that are asked every tenth interval take turns.
//
// A beat is moved by up to a fifth of the interval either way. A group is
// moved as one, along a line between random knots one interval apart, and not
// each check by itself: independent jitter of that size would undo the even
// spread. The line is never steeper than two fifths, so that successive beats
// of a check are 0.6 to 1.4 intervals apart, those of neighbours 0.6 to 1.4
// times their even share, and their order stays. The jitter is laid on the
// beat and never carried into the next: a day has 1440 beats of a minute.
//
// A new check does not wait for its own beat: its first run comes within the
// shortest interval of all checks, at the same fraction of it as its beat has
// of its own interval. Its next run is the first beat at least half an interval
// later, before jitter. So everything has been asked once within one short
// interval and a timeout, and the bounds above hold from the first beat on.
//
// # Extra runs
//
// Suspicion asks for more, by [Runner.Request] and [Runner.Go]. Both spend from
// one budget for each messenger, which refills steadily and knows no midnight.
// So does the budget of bytes, of which all runs of transfers spend.
//
// # Bounds
//
// One goroutine keeps the time; each run in flight has one more. A check that
// must wait, for its gate or for the cap on all, waits as an entry in a queue
// and holds back no other. Beats that come up while their check is still
// waiting or in flight are skipped, never made up for. The same holds after a
// stall of the process or the machine: a beat that comes up later than the
// jitter could have made it is skipped, so that each check runs once at its
// next beat and there is no burst. All times are read from the monotonic clock.
package schedule
