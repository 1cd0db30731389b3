package nft

// ntpPort is where time servers listen (RFC 5905).
const ntpPort = 123

// clockOut lets this host's own NTP go direct while the clock is wrong: no
// tunnel comes up before it is right. What is routed anew here may have got a
// tunnel's address; see clockSource.
func (r Ruleset) clockOut() []rule {
	if !r.ClockFirst {
		return nil
	}
	return rules(on(udp().dport(ntpPort), r.flow().set(r.direct()), r.packet().set(r.direct()), ret()).because("time first"))
}

// clockSource gives NTP that was routed into a tunnel at first the address of
// the way that it leaves by.
func (r Ruleset) clockSource() []rule {
	if !r.ClockFirst {
		return nil
	}
	var all []rule
	for _, t := range r.Tunnels {
		for _, a := range t.Addresses {
			all = append(all, on(out().among(setUplinks), udp().dport(ntpPort), fromAddr(a.Addr()), masquerade()).because("time first"))
		}
	}
	return all
}
