package api

// Diagnosis is what stands in the way on a host.
type Diagnosis struct {
	Schema   int       `json:"schema"`
	Fine     bool      `json:"fine"` // nothing of it breaks anything
	Findings []Finding `json:"findings"`
	Kernel   []Feature `json:"kernel"` // what was tried of it; empty where nothing asks for it
}

// Feature is something that the kernel, or this process, can do or not.
type Feature struct {
	Name string `json:"name"`
	Has  bool   `json:"has"`
	Note string `json:"note,omitempty"` // what is without it
}

// Finding is one of them.
type Finding struct {
	Severity string `json:"severity"` // "error" (breaks something), "warning"
	What     string `json:"what"`
	Fix      string `json:"fix,omitempty"` // a command or a line of the file
}
