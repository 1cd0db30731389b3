package resolvertest_test

import (
	"path/filepath"
	"strings"
	"testing"

	"smartdns/resolver/resolvertest"
)

func TestReplays(t *testing.T) {
	files, err := filepath.Glob("../../testdata/replay/*.rpl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".rpl"), func(t *testing.T) { resolvertest.Replay(t, f) })
	}
}
