package notify

import (
	"fmt"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Languages is those in which messages are written, the default first.
var Languages = []string{"en", "ru"}

// words is a language.
type words struct {
	headline string // messenger, state, functions
	since    string // a moment
	before   string // a state, a moment
	how      string // a mechanism, its name in the data, a confidence
	works    string // again
	again    string // a state
	states   map[verdict.State]string

	functions   map[string]string // their own names where there is no word
	mechanisms  map[verdict.Mechanism]string
	confidences map[verdict.Confidence]string

	testTitle, testText string
}

func wordsOf(language string) *words {
	if language == "ru" {
		return &russian
	}
	return &english
}

// state is the state that a change ends in.
func (w *words) state(c *Change) string {
	switch {
	case c.State == verdict.OK:
		return w.works
	case c.Relapse:
		return fmt.Sprintf(w.again, w.states[c.State])
	}
	return w.states[c.State]
}

func (w *words) function(name string) string { return or(w.functions[name], name) }

func (w *words) mechanism(m verdict.Mechanism) string { return or(w.mechanisms[m], string(m)) }

func (w *words) confidence(c verdict.Confidence) string { return or(w.confidences[c], string(c)) }

func or(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

var english = words{
	headline: "%s %s: %s",
	since:    "since %s",
	before:   "; before: %s, from %s on",
	how:      "; %s (%s), confidence: %s",
	works:    "works again",
	again:    "%s again",
	states: map[verdict.State]string{verdict.Blocked: "blocked", verdict.Degraded: "degraded",
		verdict.Unreachable: "unreachable", verdict.OK: "works", verdict.Unknown: "not known"},
	functions: map[string]string{"media": "photos and files", "push": "notifications"},
	mechanisms: map[verdict.Mechanism]string{
		verdict.DNSOmission: "missing from DNS", verdict.DNSInjection: "injected DNS answers", verdict.DNSHijack: "hijacked DNS",
		verdict.DNSForgery: "false addresses in DNS", verdict.DNSDrop: "DNS silence", verdict.IPBlock: "address block",
		verdict.PortBlock: "port block", verdict.TCPReset: "reset at once", verdict.SNIReset: "reset by name",
		verdict.SNIDrop: "silence by name", verdict.SNIDelayedDrop: "cut off by name", verdict.TLSMITM: "interception",
		verdict.TLSFingerprint: "filter by kind of client", verdict.HTTPStub: "block page", verdict.Freeze: "freeze",
		verdict.Throttling: "throttling", verdict.PacketLoss: "packet loss", verdict.QUICBlock: "QUIC block",
		verdict.QUICSNIBlock: "QUIC block by name", verdict.UDPBlock: "UDP block", verdict.ProtocolBlock: "protocol block",
		verdict.CallBlock: "call block", verdict.ServiceOutage: "outage of the messenger", verdict.UnknownCause: "cause not known"},
	confidences: map[verdict.Confidence]string{verdict.Low: "low", verdict.Medium: "medium", verdict.High: "high", verdict.Confirmed: "confirmed"},
	testTitle:   "messenger-probe: a test",
	testText:    "This is a test. Whoever reads it will be told when a messenger is blocked, and when it works again.",
}

var russian = words{
	headline: "%s, %s: %s",
	since:    "с %s",
	before:   "; до этого: %s, с %s",
	how:      "; %s (%s), уверенность: %s",
	works:    "снова работает",
	again:    "снова %s",
	states: map[verdict.State]string{verdict.Blocked: "блокировка", verdict.Degraded: "перебои",
		verdict.Unreachable: "нет связи", verdict.OK: "работает", verdict.Unknown: "неизвестно"},
	functions: map[string]string{"chat": "переписка", "calls": "звонки", "media": "фото и файлы", "web": "веб-версия", "login": "вход",
		"push": "уведомления", "bots": "боты"},
	mechanisms: map[verdict.Mechanism]string{
		verdict.DNSOmission: "нет в DNS", verdict.DNSInjection: "подброшенные ответы DNS", verdict.DNSHijack: "перехват DNS",
		verdict.DNSForgery: "ложные адреса в DNS", verdict.DNSDrop: "молчание DNS", verdict.IPBlock: "блокировка по адресу",
		verdict.PortBlock: "блокировка порта", verdict.TCPReset: "мгновенный обрыв", verdict.SNIReset: "обрыв по имени",
		verdict.SNIDrop: "молчание по имени", verdict.SNIDelayedDrop: "отсечение по имени", verdict.TLSMITM: "перехват",
		verdict.TLSFingerprint: "фильтр по виду клиента", verdict.HTTPStub: "страница-заглушка", verdict.Freeze: "замирание",
		verdict.Throttling: "замедление", verdict.PacketLoss: "потеря пакетов", verdict.QUICBlock: "блокировка QUIC",
		verdict.QUICSNIBlock: "блокировка QUIC по имени", verdict.UDPBlock: "блокировка UDP", verdict.ProtocolBlock: "блокировка протокола",
		verdict.CallBlock: "блокировка звонков", verdict.ServiceOutage: "сбой мессенджера", verdict.UnknownCause: "причина неизвестна"},
	confidences: map[verdict.Confidence]string{verdict.Low: "низкая", verdict.Medium: "средняя", verdict.High: "высокая", verdict.Confirmed: "доказано"},
	testTitle:   "messenger-probe: проверка связи",
	testText:    "Это проверка. Кто её читает, тому сообщат, когда мессенджер заблокируют и когда он снова заработает.",
}
