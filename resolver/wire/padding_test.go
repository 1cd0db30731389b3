package wire

import (
	"bytes"
	"testing"
)

func TestPadFillsBlocks(t *testing.T) {
	base := AppendOPT(AppendQuery(nil, []byte("\x03www\x07example\x00"), TypeA, false, false, nil)[:HeaderLen+13+4], false, -1, "")
	base[11] = 1
	for n := range 1000 {
		msg := AppendOption(bytes.Clone(base), 65001, make([]byte, n))
		if len(msg) != len(base)+4+n {
			t.Fatalf("%d octets, want %d", len(msg), len(base)+4+n)
		}
		padded := Pad(bytes.Clone(msg))
		if len(padded)%padBlock != 0 || len(padded) > len(msg)+4+padBlock {
			t.Fatalf("%d octets became %d", len(msg), len(padded))
		}
		options, _, ok := Options(padded)
		value, found := Option(options, OptionPadding)
		if !ok || !found || bytes.ContainsFunc(value, func(r rune) bool { return r != 0 }) || !bytes.Equal(padded[:2], msg[:2]) {
			t.Fatalf("the padding of %d octets is %x", len(msg), value)
		}
	}
}

func TestAppendOptionLeavesWhatHasNoRoomForIt(t *testing.T) {
	bare := AppendQuery(nil, []byte("\x03www\x07example\x00"), TypeA, false, false, nil)
	bare = StripOPT(bare)
	if got := Pad(bytes.Clone(bare)); !bytes.Equal(got, bare) {
		t.Errorf("a message without an OPT became %x", got)
	}
	full := AppendOption(AppendOPT(bytes.Clone(bare), false, -1, ""), 65001, make([]byte, 65000-len(bare)))
	if len(full) != 65000+11+4 {
		t.Fatalf("%d octets", len(full))
	}
	if got := AppendOption(bytes.Clone(full), 65002, make([]byte, 1000)); !bytes.Equal(got, full) {
		t.Errorf("%d octets became %d", len(full), len(got))
	}
	if got := Pad(bytes.Clone(full)); len(got) > MaxMessage {
		t.Errorf("padded to %d octets", len(got))
	}
}
