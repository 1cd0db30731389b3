package hostdns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"smartdns/internal/wholefile"
)

// readSaved reads what writeSaved wrote, and reports whether there is any.
func readSaved(path string, value any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, value)
	}
	if err != nil {
		return false, fmt.Errorf("reading what is to be restored, %s: %w", path, err)
	}
	return true, nil
}

func writeSaved(path string, value any) error {
	data, err := json.Marshal(value)
	if err == nil {
		err = wholefile.ReplaceBytes(path, data)
	}
	if err != nil {
		return fmt.Errorf("keeping what is to be restored, %s: %w", path, err)
	}
	return nil
}

func forgetSaved(path string) error {
	return errors.Join(removeIfThere(path), removeIfThere(wholefile.Temporary(path)))
}
