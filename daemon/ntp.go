package daemon

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

// knownTimeServers are names, with all below them, that hosts ask for the time
// without saying so in a file that we can read.
func knownTimeServers() []string {
	return []string{
		"pool.ntp.org", "ntp.org.cn", "ntp.aliyun.com", "ntp.tencent.com", "ntp.ntsc.ac.cn",
		"ntp.ubuntu.com", "time.apple.com", "time.cloudflare.com", "time.google.com", "time.nist.gov", "time.windows.com",
		"ntp1.aliyun.com", "ntp2.aliyun.com", "ntp3.aliyun.com", "ntp4.aliyun.com", "ntp5.aliyun.com", "ntp6.aliyun.com", "ntp7.aliyun.com",
		"time1.cloud.tencent.com", "time2.cloud.tencent.com", "time1.google.com", "time2.google.com", "time3.google.com", "time4.google.com",
	}
}

// timeFiles are where NTP clients are told whom to ask.
func timeFiles() []string {
	return []string{
		"etc/systemd/timesyncd.conf", "etc/systemd/timesyncd.conf.d/*.conf",
		"etc/chrony.conf", "etc/chrony/chrony.conf", "etc/chrony/conf.d/*.conf", "etc/chrony/sources.d/*.sources",
		"etc/ntp.conf", "etc/ntpsec/ntp.conf", "etc/ntpd.conf", "etc/openntpd/ntpd.conf",
		"etc/config/system", "etc/default/busybox-ntpd", "etc/conf.d/ntpd",
	}
}

// timeServers returns the names of the servers that NTP clients of the host
// below root are told to ask.
func timeServers(root fs.FS) []string {
	var all []string
	for _, pattern := range timeFiles() {
		files, _ := fs.Glob(root, pattern) // no pattern of ours is bad
		for _, file := range files {
			text, err := fs.ReadFile(root, file)
			if err != nil {
				continue // who may not read it asks the known ones at least
			}
			for line := range strings.Lines(string(text)) {
				all = append(all, timeServersOf(path.Base(file), line)...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// timeServersOf returns the names in one line of such a file.
func timeServersOf(file, line string) []string {
	line = strings.TrimSpace(line)
	if line == "" || strings.ContainsRune("#;!%", rune(line[0])) {
		return nil
	}
	// timesyncd.conf(5): a list.
	for _, key := range []string{"NTP", "FallbackNTP"} {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if value, ok := strings.CutPrefix(strings.TrimSpace(rest), "="); ok {
				return timeNames(strings.Fields(value)...)
			}
		}
	}
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n'\"=", r) })
	switch {
	case len(words) >= 2 && slices.Contains([]string{"server", "servers", "pool", "peer"}, words[0]):
		return timeNames(words[1])
	case len(words) >= 3 && words[0] == "list" && words[1] == "server" && file == "system":
		return timeNames(words[2])
	}
	var all []string // busybox ntpd: -p NAME
	for i, w := range words {
		if w == "-p" && i+1 < len(words) {
			all = append(all, timeNames(words[i+1])...)
		}
	}
	return all
}

// timeNames returns those of words that are names.
func timeNames(words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool {
		n, err := dnsname.Parse(w)
		return err != nil || n == "." || strings.Trim(w, "0123456789.:%") == "" || strings.Contains(w, ":")
	})
}

// timeFirst is what stands before the file's lines while the clock is wrong.
func timeFirst(servers []string) *policy.Names {
	rule := policy.NameRule{Rule: policy.Rule{
		Index: -1, Text: "time first: the clock is not set yet", Action: policy.AskSide, Side: resolver.Domestic, Alone: true,
	}}
	for _, s := range slices.Concat(knownTimeServers(), servers) {
		if name, err := dnsname.Parse(s); err == nil {
			rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Suffix, Name: name})
		}
	}
	names, err := policy.NewNames([]policy.NameRule{rule})
	if err != nil {
		return nil // no entry of this kind is refused
	}
	return names
}
