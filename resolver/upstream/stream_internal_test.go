package upstream

import (
	"errors"
	"testing"
)

// With every ID taken, looking for a free one would never end.
func TestFullStreamRefuses(t *testing.T) {
	s := &stream{calls: map[uint16]*call{}}
	for id := range maxCalls {
		s.calls[uint16(id)] = &call{}
	}
	if err := s.register(&call{sent: make([]byte, 14)}); !errors.Is(err, errBusy) {
		t.Errorf("call %d: %v", maxCalls, err)
	}
}
