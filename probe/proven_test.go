package probe

import "testing"

// What has not answered here yet says nothing by its silence; of a private
// authority a refused chain says nothing, and silence does.
func TestProven(t *testing.T) {
	result := func(c Check, f Failure) Result {
		return Result{Check: c, Steps: []Step{{Op: OpTLSHandshake, Failure: f}}}
	}
	plain := Check{Endpoint: "plain"}
	shy := Check{Endpoint: "shy", Informational: true}
	private := Check{Endpoint: "private", Private: true}
	for _, c := range []struct {
		check         Check
		failure       Failure
		before, after Outcome // the first answer
	}{
		{plain, FailureTimeout, Fail, Fail},
		{plain, FailureSSLUnknownAuthority, Fail, Fail},
		{shy, FailureTimeout, Void, Fail},
		{shy, FailureSSLUnknownAuthority, Void, Fail},
		{private, FailureTimeout, Fail, Fail},
		{private, FailureConnectionReset, Fail, Fail},
		{private, FailureSSLUnknownAuthority, Void, Fail},
	} {
		var p Proven
		r := p.Note(result(c.check, c.failure))
		if o := r.Outcome(); o != c.before {
			t.Errorf("%s, %s: %s before it ever answered, want %s", c.check.Endpoint, c.failure, o, c.before)
		}
		if r.Outcome() == Void && r.Void != ReasonInformational {
			t.Errorf("%s is void as %s", c.check.Endpoint, r.Void)
		}
		ok := p.Note(result(c.check, ""))
		if o := ok.Outcome(); o != OK {
			t.Errorf("%s answers, and is %s", c.check.Endpoint, o)
		}
		var restarted Proven
		restarted.Restore(p.IDs())
		r = restarted.Note(result(c.check, c.failure))
		if o := r.Outcome(); o != c.after {
			t.Errorf("%s, %s: %s after it answered, want %s", c.check.Endpoint, c.failure, o, c.after)
		}
	}
}
