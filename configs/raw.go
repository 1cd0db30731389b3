package configs

// The file as it is written: every table with its keys, no value judged yet.
// The tags are the names of the keys; there are no others.

type rawConfig struct {
	Listen  rawListen        `toml:"listen"`
	Tunnel  named[rawTunnel] `toml:"tunnel"`
	Side    named[rawSide]   `toml:"side"`
	List    named[rawList]   `toml:"list"`
	Decide  rawDecide        `toml:"decide"`
	Records rawRecords       `toml:"records"`
	DNS64   rawDNS64         `toml:"dns64"`
	Geo     rawGeo           `toml:"geo"`
	Poison  rawPoison        `toml:"poison"`
	Cache   rawCache         `toml:"cache"`
	Marks   rawMarks         `toml:"marks"`
	Routing rawRouting       `toml:"routing"`
}

type rawListen struct {
	DNS        rawListeners `toml:"dns"`
	DoT        rawListeners `toml:"dot"`
	DoH        rawListeners `toml:"doh"`
	Cert       rawString    `toml:"cert"`
	Key        rawString    `toml:"key"`
	LAN        rawStrings   `toml:"lan"`
	Clients    rawStrings   `toml:"clients"`
	Redirect   rawBool      `toml:"redirect"`
	Bypass     rawString    `toml:"bypass"`
	DoHServers rawStrings   `toml:"doh_servers"`
	System     rawBool      `toml:"system"`
}

type rawTunnel struct {
	Config    rawString `toml:"config"`
	Device    rawString `toml:"device"`
	WhenDown  rawString `toml:"when_down"`
	Inbound   rawString `toml:"inbound"`
	Translate rawString `toml:"translate"`
	Hooks     rawBool   `toml:"hooks"`
}

type rawSide struct {
	Servers   rawServers `toml:"servers"`
	Via       rawString  `toml:"via"`
	Choose    rawString  `toml:"choose"`
	Bootstrap rawStrings `toml:"bootstrap"`
	SOCKS5    rawString  `toml:"socks5"`
	ECS       rawString  `toml:"ecs"`
	Private   rawBool    `toml:"private"`
}

type rawServer struct {
	Server    rawString    `toml:"server"`
	Addresses rawStrings   `toml:"addresses"`
	Pin       rawOneOrMore `toml:"pin"`
}

type rawList struct {
	File   rawString `toml:"file"`
	Format rawString `toml:"format"`
	Code   rawString `toml:"code"`
	Region rawString `toml:"region"`

	URL      rawOneOrMore `toml:"url"`
	Every    rawDuration  `toml:"every"`
	Via      rawString    `toml:"via"`
	SHA256   rawString    `toml:"sha256"`
	Minisign rawString    `toml:"minisign"`
}

type rawDecide struct {
	Home      rawString             `toml:"home"`
	Auto      rawString             `toml:"auto"`
	Mixed     rawString             `toml:"mixed"`
	PrivateOK rawStrings            `toml:"private_ok"`
	Names     rules[rawNameRule]    `toml:"names"`
	Addresses rules[rawAddressRule] `toml:"addresses"`
	Clients   rules[rawClientRule]  `toml:"clients"`
}

type rawNameRule struct {
	Match   rawOneOrMore `toml:"match"`
	Ask     rawString    `toml:"ask"`
	Answer  rawOneOrMore `toml:"answer"`
	Via     rawString    `toml:"via"`
	AAAA    rawString    `toml:"aaaa"`
	HTTPS   rawString    `toml:"https"`
	Clients rawStrings   `toml:"clients"`
}

type rawRecords struct {
	Lines rawStrings `toml:"lines"`
	Zones rawStrings `toml:"zones"`
	Hosts rawStrings `toml:"hosts"`
}

type rawDNS64 struct {
	Prefix  rawString  `toml:"prefix"`
	Exclude rawStrings `toml:"exclude"`
	NAT64   rawString  `toml:"nat64"`
}

type rawAddressRule struct {
	Match rawOneOrMore `toml:"match"`
	Via   rawString    `toml:"via"`
}

type rawGeo struct {
	Sources rawStrings `toml:"sources"`
	Home    rawStrings `toml:"home"`
	Abroad  rawStrings `toml:"abroad"`
}

type rawPoison struct {
	Hold  rawDuration `toml:"hold"`
	Bogus rawStrings  `toml:"bogus"`
	Probe rawBool     `toml:"probe"`
}

type rawCache struct {
	Size     rawString   `toml:"size"`
	Stale    rawDuration `toml:"stale"`
	Prefetch rawBool     `toml:"prefetch"`
	MinTTL   rawDuration `toml:"min_ttl"`
	MaxTTL   rawDuration `toml:"max_ttl"`
	Save     rawBool     `toml:"save"`
}

type rawMarks struct {
	OnError rawString `toml:"on_error"`
	Size    rawInt    `toml:"size"`
}

type rawRouting struct {
	Mode       rawString  `toml:"mode"`
	Skip       rawStrings `toml:"skip"`
	Table      rawString  `toml:"table"`
	Strict     rawBool    `toml:"strict"`
	Masquerade rawString  `toml:"masquerade"`
	Flowtable  rawBool    `toml:"flowtable"`
}
