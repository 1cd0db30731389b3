package lab_test

import (
	"context"
	"os"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/lab/netnstest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "fake-daemon":
			os.Exit(fakeDaemon(os.Args[2:]))
		case "unprivileged":
			os.Exit(unprivileged())
		}
	}
	netnstest.Main(m)
}

// newWorld builds a world that ends with t.
func newWorld(t testing.TB) (context.Context, *lab.World) {
	t.Helper()
	netnstest.Require(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	w, err := lab.New(ctx, t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("closing the world: %v", err)
		}
	})
	return ctx, w
}
