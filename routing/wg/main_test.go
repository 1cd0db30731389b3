package wg_test

import (
	"os"
	"testing"

	"smartdns/lab/netnstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(envPeer) != "" {
		os.Exit(runPeer())
	}
	netnstest.Main(m)
}
