package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestContest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c contest
		for i := range 12 {
			pause := c.changed(time.Now())
			if err := c.err(time.Now()); (err != nil) != (i >= contestLimit) || (pause > 0) != (err != nil) {
				t.Errorf("after %d changes: %v, a pause of %s", i+1, err, pause)
			}
			time.Sleep(contestPause)
		}
		time.Sleep(contestWindow - 5*contestPause)
		if err := c.err(time.Now()); err != nil {
			t.Errorf("with 5 changes in the last 10 s: %v", err)
		}
	})
}
