package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"smartdns/configs"
	"smartdns/configs/draft"
	"smartdns/web/api"
)

// uciPrefix comes before a file in OpenWrt's UCI.
const uciPrefix = "uci:"

// initUCI prints the smartdns.toml that a file in UCI stands for. It is made
// anew at each start, and for nobody to edit.
func (a *app) initUCI(f initFlags) error {
	if f.output != "-" || len(f.from) != 1 {
		return usageError{errors.New("write smartdns init --from uci:FILE --output -")}
	}
	name := strings.TrimPrefix(f.from[0], uciPrefix)
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("reading UCI: %w", err)
	}
	defer file.Close()
	const most = 2 << 20 // what is larger than draft.UCI takes is still read as such
	data, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return fmt.Errorf("reading UCI: %w", err)
	}
	text, err := draft.UCI(data, name)
	if err != nil {
		return err
	}
	if _, err := configs.Parse(strings.NewReader(text), name); err != nil {
		return err
	}
	if a.json {
		return a.out.json(api.Initialized{Schema: api.Schema, Program: "uci", Sources: []string{name}, Text: text,
			Written: []string{}, Notes: []api.InitNote{}, Tunnels: []api.InitTunnel{}, Warnings: []string{}})
	}
	fmt.Fprint(a.out.w, text)
	return nil
}
