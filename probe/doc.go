// Package probe asks one question of one endpoint and says exactly which step
// failed, and how.
//
// # The words
//
// Seven nouns are used in code, metrics, page and README alike:
//
//   - A messenger is what people talk about: whatsapp, telegram, max. The
//     messenger named control is the group of endpoints that calibrate the
//     vantage; its functions are their roles (domestic, foreign, sibling,
//     positive).
//   - A function is what a person does with a messenger: chat, calls, media,
//     web, login, push, bots.
//   - An endpoint is one host, or one group of addresses that stand for each
//     other.
//   - A check is one protocol asked of one endpoint, on a schedule.
//   - A step is one network operation. It fails at most once.
//   - An outcome is ok, fail or void; void says nothing about the messenger:
//     our own fault, the vantage offline, the check cancelled.
//   - A verdict is what many outcomes mean for one function of one messenger.
//
// The place the agent measures from is the vantage.
//
// # How it fits together
//
// A [Check] has a name, a schedule and a [Prober]. A Prober is a plain struct
// that says what to ask of whom; it is given the network as a [Net] and returns
// the [Step]s it took. It returns no error: being blocked is a finding, not a
// fault of the program. [Classify] is the only place that turns an error into a
// [Failure], the closed vocabulary that becomes a metric label.
//
// Probers never log, never count and never decide: package verdict judges, and
// the sinks under cmd count. This package imports nothing of this module but
// the wire formats in probe/wire.
//
// # Adding a protocol
//
// Write one file with a struct that has a Probe method, use the trace helper
// for each operation, add a row to targets/kinds.go, and copy the table test of
// a neighbour: worked, refused, reset, stalled, wrong answer.
package probe
