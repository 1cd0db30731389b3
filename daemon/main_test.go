package daemon

import (
	"testing"

	"smartdns/lab/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
