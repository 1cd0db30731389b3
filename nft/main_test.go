package nft_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// envOwner makes the test binary a program that owns the table until somebody
// kills it.
const envOwner = "SMARTDNS_TEST_NFT_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(envOwner) != "" {
		if err := ownForEver(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	netnstest.Main(m)
}

func ownForEver() error {
	ctx := context.Background()
	t, err := nft.Open(ctx, nft.Options{})
	if err != nil {
		return err
	}
	if _, err := t.Set(ctx, gateway()); err != nil {
		return err
	}
	if _, err := t.Marker().Mark(ctx, 0, []routing.Mark{{Addr: addr(foreign4), Path: "wg0", Life: 2 * time.Hour}}); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}
