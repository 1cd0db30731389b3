package list_test

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestPrefixes(t *testing.T) {
	runParser(t, list.Prefixes, "1.1.1.1", []parserTest{
		{"prefixes", "1.2.3.0/24\n2001:db8::/32", []string{"1 1.2.3.0/24", "2 2001:db8::/32"}},
		{"addresses", "1.2.3.4\n2001:db8::1", []string{"1 1.2.3.4/32", "2 2001:db8::1/128"}},
		{"v4-mapped", "::ffff:1.2.3.4\n::ffff:1.2.3.0/120", []string{"1 1.2.3.4/32", "2 1.2.3.0/24"}},
		{"range of one prefix", "1.2.3.0-1.2.3.255", []string{"1 1.2.3.0/24"}},
		{"range of several", "1.2.3.1 - 1.2.3.4", []string{"1 1.2.3.1/32", "1 1.2.3.2/31", "1 1.2.3.4/32"}},
		{"range to the end", "255.255.255.254-255.255.255.255", []string{"1 255.255.255.254/31"}},
		{"range of v6", "2001:db8::-2001:db8:1:ffff:ffff:ffff:ffff:ffff", []string{"1 2001:db8::/47"}},
		{"bogus-nxdomain", "## Public DNS\n\nbogus-nxdomain=1.2.3.4\nbogus-nxdomain=1.2.3.0/24 # x\nignore-address=1.1.1.1", []string{"3 1.2.3.4/32", "4 1.2.3.0/24", "5 1.1.1.1/32"}},
		{"comments and CRLF", "# a\r\n; b\r\n1.2.3.4 # c\r\n", []string{"3 1.2.3.4/32"}},
		{"everything", "0.0.0.0/0\n::/0\n0.0.0.0-255.255.255.255\n::ffff:0:0/96", []string{"1 dropped", "2 dropped", "3 dropped", "4 dropped"}},
	})
}

func TestBadPrefixes(t *testing.T) {
	for _, text := range []string{
		"example.com", "1.2.3", "1.2.3.4/", "1.2.3.4/33", "1.2.3.0/024", "1.2.3.0/+8", "1.2.3.4/24", "2001:db8::/129", "fe80::1%eth0", "::ffff:1.2.3.0/24",
		"1.2.3.4-", "1.2.3.4-1.2.3.3", "1.2.3.4-2001:db8::", "-", "1.2.3.4 5.6.7.8", "server=/a.com/1.2.3.4", "bogus-nxdomain=", "010.1.1.1",
	} {
		got, err := collect(list.Prefixes(strings.NewReader(text + "\n" + padding("1.1.1.1"))))
		if err != nil || got[0] != "1 bad" || len(got) != 201 {
			t.Errorf("%q: got %q, %v", text, got[0], err)
		}
	}
}

func delegatedCN(r io.Reader) iter.Seq2[list.Line, error] { return list.Delegated(r, "CN") }

func TestDelegated(t *testing.T) {
	runParser(t, delegatedCN, "apnic|CN|ipv4|1.1.1.0|256|20110414|allocated", []parserTest{
		{"header and summary", "2|apnic|20260214|84201|19830613|20260213|+1000\napnic|*|ipv4|*|53993|summary", nil},
		{"version 2.3", "2.3|nro|20260214|84201|19830613|20260213|+0000", nil},
		{"v4", "apnic|CN|ipv4|1.0.1.0|256|20110414|allocated", []string{"1 1.0.1.0/24"}},
		{"v4, extended", "apnic|CN|ipv4|1.0.1.0|256|20110414|assigned|A92E1062|e-stats", []string{"1 1.0.1.0/24"}},
		{"v4, not a power of two", "apnic|CN|ipv4|1.0.1.0|768|20110414|allocated", []string{"1 1.0.1.0/24", "1 1.0.2.0/23"}},
		{"v4, not aligned", "apnic|CN|ipv4|1.0.1.0|512|20110414|allocated", []string{"1 1.0.1.0/24", "1 1.0.2.0/24"}},
		{"v4, to the end", "apnic|CN|ipv4|255.255.255.0|256|20110414|allocated", []string{"1 255.255.255.0/24"}},
		{"v6", "apnic|CN|ipv6|2001:250::|35|20000426|allocated", []string{"1 2001:250::/35"}},
		{"others", "apnic|CN|asn|3460|1|20020801|allocated\napnic|CN|ipv4|1.0.1.0|256||reserved\napnic||ipv4|1.0.1.0|256||available\napnic|TW|ipv6|2001:250::|35|20000426|allocated", nil},
		{"bad", "apnic|CN|ipv4|1.0.1.0|0|20110414|allocated\napnic|CN|ipv4|255.255.255.0|257|20110414|allocated\napnic|CN|ipv4|2001::|256|x|allocated\napnic|CN|ipv6", []string{"1 bad", "2 bad", "3 bad", "4 bad"}},
	})
}

// TestRealDelegated compares the addresses that come out with the sum of the
// counts that go in.
func TestRealDelegated(t *testing.T) {
	for _, test := range []struct {
		file, country string
		records       int // of ipv4
	}{
		{"apnic/delegated-apnic-20260213.cn.txt", "CN", 8790},
		{"apnic/delegated-apnic-20260213.txt.gz", "CN", 8790},
		{"apnic/delegated-apnic-20161219.cn.txt", "CN", 0},
		{"apnic/delegated-afrinic-20260213.nonpow2.txt", "ZA", 0},
	} {
		t.Run(test.file, func(t *testing.T) {
			data := sharedData(t, test.file)
			want, records := uint64(0), 0
			for line := range strings.Lines(string(data)) {
				f := strings.Split(strings.TrimSpace(line), "|")
				if len(f) >= 7 && f[1] == test.country && f[2] == "ipv4" {
					n, err := strconv.ParseUint(f[4], 10, 32)
					if err != nil {
						t.Fatal(err)
					}
					want += n
					records++
				}
			}
			got, prefixes := uint64(0), 0
			for l, err := range list.Delegated(bytes.NewReader(data), test.country) {
				if err != nil {
					t.Fatal(err)
				}
				if l.Kind != list.Prefix {
					t.Fatal(l.Err)
				}
				if l.Prefix.Addr().Is4() {
					got += 1 << (32 - l.Prefix.Bits())
					prefixes++
				}
			}
			t.Logf("%d records, %d prefixes, %d addresses", records, prefixes, got)
			if got != want || records == 0 || test.records != 0 && records != test.records {
				t.Errorf("%d addresses of %d records, want %d of %d", got, records, want, test.records)
			}
		})
	}
}

func TestRealPrefixes(t *testing.T) {
	for name, want := range map[string]int{
		"own/cn4.txt": 5527, "own/cn6.txt": 2026, "cnip/gaoyifan-china4.txt": 4604, "cnip/gaoyifan-china6.txt": 1641,
		"domains/bogus-nxdomain.china.conf": 165,
	} {
		var tally list.Tally
		for _, err := range tally.Watch(list.Prefixes(bytes.NewReader(sharedData(t, name)))) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if tally.Used != want || tally.First != nil {
			t.Errorf("%s: %+v, want %d prefixes", name, tally, want)
		}
	}
}

// size returns how many addresses the prefixes of lines hold, which must be
// valid and masked.
func size(t *testing.T, lines iter.Seq2[list.Line, error]) (*big.Int, bool) {
	t.Helper()
	sum := new(big.Int)
	for l, err := range lines {
		if err != nil {
			return nil, false
		}
		if l.Kind != list.Prefix {
			if l.Err == nil && l.Kind != list.ExceptPrefix {
				t.Fatalf("line %d: no reason", l.Number)
			}
			continue
		}
		p := l.Prefix
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 {
			t.Fatalf("prefix %v", p)
		}
		sum.Add(sum, new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits())))
	}
	return sum, true
}

func FuzzPrefixes(f *testing.F) {
	f.Add("1.2.3.0/24\n1.2.3.4\n1.2.3.4-1.2.3.9\n")
	f.Add("add x 1.0.1.0/24 nomatch\nroute add 1.0.2.0 mask 255.255.254.0\nelements = { 1.0.1.0/24, 1.0.1.1-1.0.1.9 }\n")
	f.Add("2001:db8::/32\n::ffff:1.2.3.0/120\nbogus-nxdomain=1.2.3.4\n")
	f.Add("\ufeff0.0.0.0/0\r\n; x\r\n::-::ffff\r\n")
	f.Fuzz(func(t *testing.T, text string) { size(t, list.Prefixes(strings.NewReader(text))) })
}

func FuzzRange(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, []byte{1, 2, 5, 6})
	f.Add(make([]byte, 16), bytes.Repeat([]byte{0xfe}, 16))
	f.Fuzz(func(t *testing.T, from, to []byte) {
		a, ok := netip.AddrFromSlice(from)
		b, ok2 := netip.AddrFromSlice(to)
		a, b = a.Unmap(), b.Unmap()
		if !ok || !ok2 || a.BitLen() != b.BitLen() || b.Less(a) {
			return
		}
		number := func(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
		want := new(big.Int).Sub(number(b), number(a))
		want.Add(want, big.NewInt(1))
		if want.BitLen() == a.BitLen()+1 {
			return
		}
		if got, ok := size(t, list.Prefixes(strings.NewReader(fmt.Sprintf("%s-%s", a, b)))); !ok || got.Cmp(want) != 0 {
			t.Fatalf("%s-%s: %v addresses, want %v", a, b, got, want)
		}
	})
}

func FuzzDelegated(f *testing.F) {
	f.Add("2|apnic|20260214|84201|19830613|20260213|+1000\napnic|*|ipv4|*|53993|summary\napnic|CN|ipv4|1.0.1.0|768|20110414|allocated\n")
	f.Add("apnic|CN|ipv6|2001:250::|35|20000426|allocated\napnic|CN|ipv4|255.255.255.255|4294967295|x|assigned\n")
	f.Fuzz(func(t *testing.T, text string) { size(t, delegatedCN(strings.NewReader(text))) })
}

func FuzzDetect(f *testing.F) {
	f.Add("a.com\n")
	f.Add("\ufeff1.2.3.0/24\r\n")
	f.Add("\x00\x00\x01")
	f.Fuzz(func(t *testing.T, text string) {
		kind, r, err := list.Detect(strings.NewReader(text))
		if err != nil {
			return
		}
		if all, err := io.ReadAll(r); err != nil || string(all) != text || kind == "" {
			t.Fatalf("%q: %v", kind, err)
		}
	})
}

func BenchmarkDelegated(b *testing.B) {
	data := sharedData(b, "apnic/delegated-apnic-20260213.txt.gz")
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range delegatedCN(bytes.NewReader(data)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
