package verdict

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// The town is a small catalogue in which three messengers are laid out as the
// real ones are: Telegram by address, WhatsApp by name and with names in TLS,
// MAX at home. The verdict is tested on it because one can read it at a glance;
// what the whole catalogue makes of it is tested beside.

const (
	waChat  = "15.197.206.217 3.33.252.61 57.144.253.33"
	waPort  = "57.144.253.33"
	waWeb   = "157.240.205.60 31.13.72.52"
	waLogin = "157.240.205.61"
	waMedia = "157.240.205.55 31.13.72.50"
	waRelay = "179.60.192.48 185.60.216.51 157.240.196.62"

	waIP6 = "2a03:2880::/32"

	tgChat  = "149.154.175.50 149.154.167.51 149.154.175.100 149.154.167.91 91.108.56.130"
	tgMedia = "149.154.167.222 149.154.166.120"
	tgRelay = "91.108.9.35 91.108.13.23 91.108.17.2"
	tgWeb   = "149.154.167.99"
	tgBots  = "149.154.167.220"

	maxChat  = "155.212.204.1"
	maxWeb   = "155.212.205.2"
	maxMedia = "155.212.206.3"
	maxRelay = "155.212.199.159 155.212.205.82 155.212.197.39"
)

// townNames is the zone.
var townNames = map[string]string{
	"g.whatsapp.net":        "57.144.253.33",
	"e1.whatsapp.net":       "15.197.206.217 3.33.252.61",
	"web.whatsapp.com":      waWeb + " 2a03:2880:f26c:c4:face:b00c:0:167",
	"v.whatsapp.net":        waLogin + " 2a03:2880:f26c:c6:face:b00c:0:3333",
	"mmg.whatsapp.net":      waMedia,
	"web.telegram.org":      tgWeb + " 2001:67c:4e8:f004::9",
	"kws2.web.telegram.org": tgWeb,
	"api.telegram.org":      tgBots + " 2001:67c:4e8:f004::9",
	"telegram.org":          tgWeb,
	"api.oneme.ru":          maxChat,
	"web.max.ru":            maxWeb,
	"i.oneme.ru":            maxMedia,
	"calls.okcdn.ru":        "217.20.155.1",
	"platform-api.max.ru":   "155.212.206.4",

	"ya.ru":               "77.88.55.242 2a02:6b8::2:242",
	"vk.ru":               "87.240.132.67",
	"www.gosuslugi.ru":    "213.59.254.7",
	"example.com":         "93.184.216.34",
	"www.google.com":      "142.250.74.4 2a00:1450:4010:c0f::68",
	"github.com":          "140.82.121.3",
	"ru.wikipedia.org":    "185.15.59.224 2a02:ec80:300:ed1a::1",
	"www.wikipedia.org":   "185.15.58.224",
	"cloudflare.com":      "104.16.132.229 2606:4700::6810:84e5",
	"proof.ovh.net":       "141.95.207.211",
	"stun.l.google.com":   "74.125.250.129",
	"stun.cloudflare.com": "162.159.207.1",
	"stun.sipnet.ru":      "212.53.40.43",
	"x.com":               "104.244.42.1",
	"www.youtube.com":     "142.250.74.14",
}

func resolver(name, addr, transport string) probe.Server {
	s := probe.Server{Name: name, Transport: transport, Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 53)}
	if transport == probe.OverHTTPS {
		s.Addr, s.ServerName, s.Path = netip.AddrPortFrom(s.Addr.Addr(), 443), "dns."+name, "/dns-query"
	}
	return s
}

var (
	systemResolvers = []probe.Server{resolver(probe.System, "95.165.0.53", probe.OverUDP), resolver(probe.System, "95.165.0.54", probe.OverUDP)}
	national        = resolver("national", "195.208.4.1", probe.OverUDP)
	yandex          = resolver("yandex", "77.88.8.8", probe.OverTCP)
	google          = resolver("google", "8.8.8.8", probe.OverTCP)
	googleUDP       = resolver("google", "8.8.8.8", probe.OverUDP)
	googleDoH       = resolver("google", "8.8.8.8", probe.OverHTTPS)
	cloudflareDoH   = resolver("cloudflare", "1.1.1.1", probe.OverHTTPS)
)

// known is the addresses that run a resolver.
var known = map[string]bool{"95.165.0.53": true, "95.165.0.54": true, "195.208.4.1": true, "77.88.8.8": true, "8.8.8.8": true, "1.1.1.1": true}

func family(a netip.Addr) string {
	if a.Is6() {
		return probe.IP6
	}
	return probe.IP4
}

// A builder lays out checks.
type builder struct {
	checks []probe.Check
	base   probe.Check
}

// at starts an endpoint.
func (b *builder) at(messenger, function, endpoint string) *builder {
	b.base = probe.Check{Messenger: messenger, Function: function, Endpoint: endpoint, Interval: time.Minute, Timeout: 10 * time.Second}
	return b
}

func (b *builder) add(protocol, fam, target string, p probe.Prober) {
	c := b.base
	c.Protocol, c.Family, c.Target, c.Prober = protocol, fam, target, p
	b.checks = append(b.checks, c)
}

// addresses asks each address on each port.
func (b *builder) addresses(protocol, addrs string, arm string, p probe.Addressed, ports ...uint16) *builder {
	for _, a := range strings.Fields(addrs) {
		for _, port := range ports {
			to := netip.AddrPortFrom(netip.MustParseAddr(a), port)
			b.add(protocol, family(to.Addr()), to.String()+","+arm, p.At(to))
		}
	}
	return b
}

// host asks each address of a name.
func (b *builder) host(protocol, name, arm string, p probe.Addressed, port uint16) *builder {
	slots := map[string]int{}
	for _, a := range strings.Fields(townNames[name]) {
		fam := family(netip.MustParseAddr(a))
		slots[fam]++
		target := strings.Repeat("#", slots[fam]) + arm
		b.add(protocol, fam, name+":"+itoa(port)+target, probe.ByName{Host: name, Port: port, Family: fam, Slot: slots[fam] - 1, Ask: p})
	}
	return b
}

func itoa(n uint16) string {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), n).String()[len("0.0.0.0:"):]
}

// lookups asks resolvers for a name.
func (b *builder) lookups(name string, who ...probe.Server) *builder {
	for i, s := range who {
		b.add(probe.ProtoDNS, probe.IP4, s.Transport+","+s.Name+strings.Repeat("#", i), probe.DNS{Server: s, Host: name, Type: 1})
	}
	return b
}

var everyResolver = []probe.Server{systemResolvers[0], systemResolvers[1], national, yandex, google, googleDoH, cloudflareDoH}

// site is what is asked of a web host.
func (b *builder) site(name string) *builder {
	return b.lookups(name, everyResolver...).
		host(probe.ProtoTCP, name, "", probe.TCP{}, 443).
		host(probe.ProtoTLS, name, "", probe.TLS{ServerName: name, Hello: probe.HelloGo}, 443).
		hostFirst(probe.ProtoTLS, name, "x25519", probe.TLS{ServerName: name, Hello: probe.HelloX25519}, 443).
		host(probe.ProtoHTTP, name, "", probe.HTTP{ServerName: name, Method: "HEAD"}, 443)
}

// hostFirst asks the first address of each family of a name.
func (b *builder) hostFirst(protocol, name, arm string, p probe.Addressed, port uint16) *builder {
	n := len(b.checks)
	b.host(protocol, name, arm, p, port)
	b.checks = append(b.checks[:n], slices.DeleteFunc(slices.Clone(b.checks[n:]), func(c probe.Check) bool {
		return c.Prober.(probe.ByName).Slot > 0
	})...)
	return b
}

// town is every check.
func town() []probe.Check {
	b := &builder{}
	const wa, tg, mx = "whatsapp", "telegram", "max"

	b.at(wa, "chat", "g").lookups("g.whatsapp.net", everyResolver...).
		host(probe.ProtoTCP, "g.whatsapp.net", "", probe.TCP{}, 443).host(probe.ProtoTCP, "g.whatsapp.net", "", probe.TCP{}, 5222).
		host(probe.ProtoNoise, "g.whatsapp.net", "", probe.Noise{Over: "raw"}, 443).host(probe.ProtoNoise, "g.whatsapp.net", "", probe.Noise{Over: "raw"}, 5222)
	b.at(wa, "chat", "e1").lookups("e1.whatsapp.net", everyResolver...).
		host(probe.ProtoNoise, "e1.whatsapp.net", "", probe.Noise{Over: "raw"}, 443).host(probe.ProtoNoise, "e1.whatsapp.net", "", probe.Noise{Over: "raw"}, 5222)
	b.at(wa, "chat", "accelerator").addresses(probe.ProtoTCP, waChat, "", probe.TCP{}, 443, 5222).
		addresses(probe.ProtoNoise, waChat, "", probe.Noise{Over: "raw"}, 443, 5222)
	b.at(wa, "web", "web").site("web.whatsapp.com").host(probe.ProtoQUIC, "web.whatsapp.com", "", probe.QUIC{ServerName: "web.whatsapp.com"}, 443).
		host(probe.ProtoNoise, "web.whatsapp.com", "ws", probe.Noise{Over: "websocket", ServerName: "web.whatsapp.com"}, 443)
	b.at(wa, "web", "plain").host(probe.ProtoHTTP, "web.whatsapp.com", "plain", probe.HTTP{Plain: true, Host: "web.whatsapp.com", Method: "HEAD"}, 80)
	b.at(wa, "login", "registration").site("v.whatsapp.net")
	b.at(wa, "media", "mmg").site("mmg.whatsapp.net").host(probe.ProtoQUIC, "mmg.whatsapp.net", "", probe.QUIC{ServerName: "mmg.whatsapp.net"}, 443).
		host(probe.ProtoTransfer, "mmg.whatsapp.net", "", probe.Transfer{ServerName: "mmg.whatsapp.net", Direction: probe.Download}, 443)
	b.at(wa, "calls", "relay").addresses(probe.ProtoSTUN, waRelay, "", probe.STUN{}, 3478)

	for i, a := range strings.Fields(tgChat) {
		b.at(tg, "chat", "dc"+itoa(uint16(i+1))).addresses(probe.ProtoTCP, a, "", probe.TCP{}, 443, 80, 5222).
			addresses(probe.ProtoMTProto, a, "obfuscated2", probe.MTProto{Transport: "obfuscated2"}, 443, 80, 5222).
			addresses(probe.ProtoMTProto, a, "abridged", probe.MTProto{Transport: "abridged"}, 443).
			addresses(probe.ProtoMTProto, a, "intermediate", probe.MTProto{Transport: "intermediate"}, 443)
	}
	b.at(tg, "media", "dc-media").addresses(probe.ProtoTCP, tgMedia, "", probe.TCP{}, 443).
		addresses(probe.ProtoMTProto, tgMedia, "obfuscated2", probe.MTProto{Transport: "obfuscated2"}, 443)
	b.at(tg, "media", "download").host(probe.ProtoTransfer, "telegram.org", "", probe.Transfer{ServerName: "telegram.org", Direction: probe.Download}, 443)
	b.at(tg, "calls", "relay").addresses(probe.ProtoSTUN, tgRelay, "", probe.STUN{}, 1400).
		addresses(probe.ProtoSTUN, "91.108.9.35", "burst", probe.STUN{Burst: 50}, 1400)
	b.at(tg, "web", "web").site("web.telegram.org")
	b.at(tg, "web", "kws2").host(probe.ProtoMTProto, "kws2.web.telegram.org", "", probe.MTProto{Transport: "websocket", ServerName: "kws2.web.telegram.org"}, 443)
	b.at(tg, "bots", "api").site("api.telegram.org")

	b.at(mx, "chat", "api").site("api.oneme.ru").host(probe.ProtoOneMe, "api.oneme.ru", "", probe.OneMe{ServerName: "api.oneme.ru", Over: probe.OneMeTLS}, 443)
	b.at(mx, "web", "web").site("web.max.ru")
	b.at(mx, "media", "images").site("i.oneme.ru").host(probe.ProtoTransfer, "i.oneme.ru", "", probe.Transfer{ServerName: "i.oneme.ru", Direction: probe.Download}, 443)
	b.at(mx, "calls", "calls-api").site("calls.okcdn.ru")
	b.at(mx, "calls", "relay").addresses(probe.ProtoSTUN, maxRelay, "", probe.STUN{}, 19302)
	b.at(mx, "bots", "api").site("platform-api.max.ru")

	for _, name := range []string{"ya.ru", "vk.ru", "www.gosuslugi.ru"} {
		b.control(probe.Domestic, name)
	}
	for _, name := range []string{"example.com", "www.google.com", "github.com", "ru.wikipedia.org", "www.wikipedia.org", "cloudflare.com"} {
		b.control(probe.Foreign, name)
	}
	for _, name := range []string{"www.google.com", "cloudflare.com"} {
		b.at(probe.Control, probe.Foreign, name).host(probe.ProtoQUIC, name, "", probe.QUIC{ServerName: name}, 443).
			host(probe.ProtoQUIC, name, "ping", probe.QUICPing{}, 443)
	}
	b.at(probe.Control, probe.Foreign, "stun-google").lookups("stun.l.google.com", systemResolvers[0]).host(probe.ProtoSTUN, "stun.l.google.com", "", probe.STUN{}, 19302).
		host(probe.ProtoSTUN, "stun.l.google.com", "burst", probe.STUN{Burst: 50}, 19302)
	b.at(probe.Control, probe.Foreign, "stun-cloudflare").host(probe.ProtoSTUN, "stun.cloudflare.com", "", probe.STUN{}, 3478)
	b.at(probe.Control, probe.Domestic, "stun-sipnet").host(probe.ProtoSTUN, "stun.sipnet.ru", "", probe.STUN{}, 3478)
	b.at(probe.Control, probe.Foreign, "ovh-transfer").host(probe.ProtoTransfer, "proof.ovh.net", "", probe.Transfer{ServerName: "proof.ovh.net", Direction: probe.Download}, 443)
	b.at(probe.Control, probe.Domestic, "ya.ru-transfer").host(probe.ProtoTransfer, "ya.ru", "", probe.Transfer{ServerName: "ya.ru", Direction: probe.Download}, 443)
	for _, s := range []probe.Server{national, yandex, google, googleUDP, googleDoH, cloudflareDoH} {
		role, name := probe.Foreign, "example.com"
		if s.Name == "national" || s.Name == "yandex" {
			role, name = probe.Domestic, "ya.ru"
		}
		b.at(probe.Control, role, "dns-"+s.Name).lookups(name, s)
	}
	for of, addrs := range map[string]string{"telegram": "149.154.167.40 149.154.175.10", "whatsapp": "157.240.205.35 15.197.251.99"} {
		b.at(probe.Control, probe.Sibling, "sibling-"+of).base.Of = of
		b.addresses(probe.ProtoTCP, addrs, "", probe.TCP{}, 443)
	}
	for name, m := range map[string]Mechanism{"x.com": SNIDrop, "www.youtube.com": DNSOmission} {
		b.at(probe.Control, probe.Positive, name).base.Mechanism = string(m)
		b.lookups(name, systemResolvers[0]).host(probe.ProtoTCP, name, "", probe.TCP{}, 443).host(probe.ProtoTLS, name, "", probe.TLS{ServerName: name}, 443)
	}
	slices.SortFunc(b.checks, func(x, y probe.Check) int { return strings.Compare(x.ID(), y.ID()) })
	return b.checks
}

func (b *builder) control(role, name string) {
	b.at(probe.Control, role, name).lookups(name, systemResolvers...).
		host(probe.ProtoTCP, name, "", probe.TCP{}, 443).
		host(probe.ProtoTLS, name, "", probe.TLS{ServerName: name}, 443).
		host(probe.ProtoHTTP, name, "", probe.HTTP{ServerName: name, Method: "HEAD"}, 443)
}
