package api

// Installed is what smartdns install and uninstall did.
type Installed struct {
	Schema int             `json:"schema"`
	Init   string          `json:"init"` // systemd, openrc or procd; "" of uninstall
	Files  []InstalledFile `json:"files"`
	Notes  []string        `json:"notes"` // what is worth knowing
	Next   []string        `json:"next"`  // commands to run, in this order
}

// InstalledFile is what became of a file.
type InstalledFile struct {
	Path string `json:"path"`
	Done string `json:"done"`           // wrote, as it was, kept, removed; "" when only asked
	Text string `json:"text,omitempty"` // of --dry-run
}
