package api

// Initialized is what smartdns init wrote.
type Initialized struct {
	Schema   int          `json:"schema"`
	Program  string       `json:"program"` // whose configuration it is from; "" for nobody's
	Sources  []string     `json:"sources"`
	Written  []string     `json:"written"` // the configuration last
	Notes    []InitNote   `json:"notes"`
	Tunnels  []InitTunnel `json:"tunnels"`
	Warnings []string     `json:"warnings"`       // of the new file
	Next     string       `json:"next"`           // the command that comes next
	Text     string       `json:"text,omitempty"` // the file, of one in UCI
}

// InitNote is what became of a line of the other program's file.
type InitNote struct {
	File string `json:"file"`
	Line int    `json:"line"` // 0 for what is in no line
	Text string `json:"text"`
	Kind string `json:"kind"` // lost, changed or idle
	Why  string `json:"why"`
}

// InitTunnel is what becomes of a wg-quick file.
type InitTunnel struct {
	Path     string   `json:"path"`
	Honoured []string `json:"honoured"`
	Ignored  []string `json:"ignored"`
}
