package cache_test

import (
	"testing"

	"smartdns/resolver/cache"
)

func TestKeyIsRead(t *testing.T) {
	k := cache.AppendKey(nil, "domestic", []byte("\x03wWw\x02cn\x00\x00\x1c\x00\x01"), true, false)
	got, ok := cache.ParseKey(k)
	if !ok || got.Side != "domestic" || string(got.Name) != "\x03www\x02cn\x00" || got.Type != 28 || !got.DO || got.CD {
		t.Errorf("ParseKey = %+v, %v", got, ok)
	}
	for n := range len("xx") + len("domestic") + 3 {
		if got, ok := cache.ParseKey(k[:n]); ok {
			t.Errorf("%x: %+v", k[:n], got)
		}
	}
}
