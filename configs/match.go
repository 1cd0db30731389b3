package configs

// String returns m as the file can write it.
func (m NameMatch) String() string {
	switch m.Kind {
	case MatchSuffix:
		return m.Name.String()
	case MatchFull:
		return "full:" + m.Name.String()
	case MatchKeyword:
		return "keyword:" + m.Text
	case MatchRegexp:
		return "regexp:" + m.Regexp.String()
	case MatchList:
		return "list:" + m.Text
	case MatchReverse:
		return "reverse:" + m.Prefix.String()
	}
	return "*"
}

// String returns m as the file can write it.
func (m AddressMatch) String() string {
	switch m.Kind {
	case AddrPrivate:
		return "private"
	case AddrHome:
		return "home"
	case AddrPrefix:
		return m.Prefix.String()
	case AddrList:
		return "list:" + m.List
	}
	return "*"
}
