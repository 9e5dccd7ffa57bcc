// Package onset says when a block of a messenger began and when it ended, as
// soon as outcomes can tell, and without crying wolf. It is pure: outcomes in,
// changes of state out; no clock, no network, no randomness. The same outcomes
// always give the same events, live and in a replay.
//
// # How it decides
//
// A threshold ("three failures in a row", "below half for five minutes") is
// either slow or wakes people for nothing, because most of what looks like a
// block is not one. Here two kinds of stories compete to explain the outcomes:
// that a scope of the messenger (all of it, its connections, its encrypted
// connections, its names, its calls, one function, one endpoint) is blocked
// wholly or in part; and every benign story that has a name (the vantage is
// down or lossy, the resolver or UDP is down, a path fails, an endpoint or the
// server is down, a short blip), told apart by controls, by siblings on the
// messenger's own path, and by references, which see the same endpoint from
// another country. A block is declared when its story beats the best mixture of
// the others by 16 nats. Evidence is counted per outcome as a log-likelihood
// ratio, so that two failures that cannot be chance weigh more than ten that
// can. detector.go has the formulas.
//
// # How it is quick
//
// On suspicion it asks for confirmation probes ([Engine.Requests]), of which it
// has a daily budget, rather than wait for the schedule. Nothing is decided on
// half a round of them.
//
// # Traps
//
// Probes are consumed in the order in which they started, not in that in which
// they ended: time-outs end last, and whoever looks in order of completion sees
// the survivors first. So [Engine.Started] matters.
//
// Two probes of one stream within five seconds are one draw of one burst of
// loss, not two pieces of evidence, and are not asked for.
//
// Feed outcomes before anybody voided them for the vantage's sake: the detector
// judges the vantage by itself, and needs its failures to do so. What must not
// be fed is what says nothing: cancelled probes, this machine's own faults,
// checks that have not proved to work here. For these there is
// [Engine.Abandoned], or nothing at all.
//
// # Sources
//
// Page 1954; Lorden 1971; Moustakides 1986 (CUSUM is minimax); Fuh 2003 (over
// hidden Markov models); Mei 2010 (many streams); Banerjee and Veeravalli 2013
// (spend probes when suspicious); Unnikrishnan, Veeravalli, Meyn 2011 (least
// favourable rates); Huber 1965 (clipping); Quan, Heidemann, Pradkin 2013
// (probe until decisive). The state-aware reset is that of OONI's pipeline
// (ooni/data, analysis/detector.py).
package onset
