package configs

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Tables returns what Text writes, as tables of Go values.
func (c *Config) Tables() (map[string]any, error) {
	var tables map[string]any
	if err := toml.Unmarshal([]byte(c.Text()), &tables); err != nil {
		return nil, fmt.Errorf("reading back the effective configuration: %w", err)
	}
	return tables, nil
}
