package api

// Diagnosis is what stands in the way on a host.
type Diagnosis struct {
	Schema   int       `json:"schema"`
	Fine     bool      `json:"fine"` // nothing of it breaks anything
	Findings []Finding `json:"findings"`
}

// Finding is one of them.
type Finding struct {
	Severity string `json:"severity"` // "error" (breaks something), "warning"
	What     string `json:"what"`
	Fix      string `json:"fix,omitempty"` // a command or a line of the file
}
