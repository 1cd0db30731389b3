package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/web/api"
)

func (w *world) verdicts() map[string]api.Verdict {
	w.t.Helper()
	out, err := w.cli("verdicts", "--json")
	if err != nil {
		w.t.Fatalf("smartdns verdicts: %v\n%s", err, out)
	}
	var v api.Verdicts
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	all := map[string]api.Verdict{}
	for _, x := range v.Verdicts {
		all[x.Name] = x
	}
	return all
}

// A verdict and a pin decide again after a restart and after SIGKILL, are in
// the decision, and go when somebody forgets them.
func TestVerdictsOverARestart(t *testing.T) {
	w := started(t)
	w.resolve("www.example.com", 0)
	if v := w.verdicts()["www.example.com"]; v.Region != "abroad" || v.Why == "" || v.Pinned {
		t.Errorf("learned %+v", v)
	}
	for _, c := range [][2]string{
		{"verdicts pin www.example.net home", "www.example.net is home until you forget it\n"},
		{"verdicts pin www.taobao.com abroad", "but names[0]"}, // a list decides about it
		{"verdicts forget www.taobao.com", "forgot the verdict for www.taobao.com"},
	} {
		if out, err := w.cli(strings.Fields(c[0])...); err != nil || !strings.Contains(out, c[1]) {
			t.Errorf("smartdns %s: %v\n%s", c[0], err, out)
		}
	}
	if out, err := w.cli("verdicts", "pin", "www.example.net", "nowhere"); err == nil || !strings.Contains(err.Error(), "write home or abroad") {
		t.Errorf("pinned nowhere: %v\n%s", err, out)
	}
	w.stop()
	w.start()
	w.waitUp()
	if v := w.verdicts(); v["www.example.com"].Region != "abroad" || !v["www.example.net"].Pinned {
		t.Errorf("after a restart: %+v", v)
	}
	out, err := w.cli("query", "www.example.com", "--json")
	var d api.Decision
	if err != nil || json.Unmarshal([]byte(out), &d) != nil || d.Steps[0].Auto == nil || d.Steps[0].Auto.Learned == nil {
		t.Errorf("the decision says nothing of the verdict: %v\n%s", err, out)
	}
	// A pin is on disk when it is said.
	if _, err := w.cli("verdicts", "pin", "www.example.com", "abroad"); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Gateway.StateDir(), "verdicts"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.waitUp()
	if v := w.verdicts(); !v["www.example.com"].Pinned || !v["www.example.net"].Pinned {
		t.Errorf("after SIGKILL: %+v", v)
	}
	if s := w.status(); !strings.Contains(conditionsText(s), "verdicts.corrupt") {
		t.Errorf("conditions: %s", conditionsText(s))
	}
	out, err = w.cli("query", "www.example.com")
	if err != nil || !strings.Contains(out, "pinned") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := w.cli("verdicts", "forget", "--all"); err != nil || !strings.Contains(out, "2 pinned stay") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := w.cli("verdicts", "forget", "www.example.com"); err != nil {
		t.Error(err)
	}
	if v := w.verdicts(); len(v) != 1 {
		t.Errorf("after forgetting: %+v", v)
	}
	if _, err := w.cli("verdicts", "forget", "www.example.com"); err == nil || !strings.Contains(err.Error(), "there is no verdict") {
		t.Errorf("forgotten twice: %v", err)
	}
}

func conditionsText(s api.Status) string {
	var all []string
	for _, c := range s.Conditions {
		all = append(all, c.What)
	}
	return strings.Join(all, "\n")
}
