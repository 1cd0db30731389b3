package list_test

import (
	"fmt"
	"os"
	"path/filepath"

	"smartdns/geo/list"
)

func ExampleNames() {
	printFile("names.txt")
	// Output:
	// domains
	// 2 suffix example.cn.
	// 3 suffix example.com.
	// 4 suffix example.net.
	// 5 full www.example.org.
	// 6 keyword example
	// 7 regexp ^cdn[0-9]+\.example\.
	// 9 suffix a.example.
	// 9 suffix b.example.
	// 11 suffix xn--fsqu00a.xn--fiqs8s.
	// 12 suffix cn.
	// 13 dropped
}

func ExamplePrefixes() {
	printFile("prefixes.txt")
	// Output:
	// cidr
	// 3 1.0.1.0/24
	// 4 1.0.2.0/23
	// 5 1.0.8.1/32
	// 6 2001:250::/35
	// 7 123.125.81.12/32
}

func printFile(name string) {
	f, err := os.Open(filepath.Join("..", "..", "testdata", "lists", name))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	format, r, err := list.Detect(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(format)
	for l, err := range list.Parse(r, format, list.Options{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(show(l))
	}
}
