package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"smartdns/web/api"
)

// conntrackDir has the kernel's table of flows, in numbers: those of the network
// namespace of the thread that reads.
const conntrackDir = "/proc/sys/net/netfilter"

// conntrackEvery is how often the table is looked at.
const conntrackEvery = 4 * time.Second

// flows is how full the kernel's connection tracking table is. The zero value is
// a kernel without one.
type flows struct{ count, most int }

// readFlows reads them in dir.
func readFlows(dir string) flows {
	return flows{readNumber(dir + "/nf_conntrack_count"), readNumber(dir + "/nf_conntrack_max")}
}

// readNumber returns 0 for a file that is not there: no flow is tracked.
func readNumber(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// condition says of a table that is full, or nearly, what happens then. A flow
// that finds no room is dropped by the kernel, whoever's it is.
func (f flows) condition() (c api.Condition, ok bool) {
	if f.most <= 0 || f.count < f.most-f.most/20 {
		return api.Condition{}, false
	}
	c = api.Condition{
		Severity: severityWarning, Fix: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*f.most),
		What: fmt.Sprintf("the kernel's connection tracking table is nearly full (nf_conntrack_max = %d): soon new connections are dropped", f.most),
	}
	if f.count >= f.most {
		c.Severity = severityError
		c.What = fmt.Sprintf("the kernel's connection tracking table is full (nf_conntrack_max = %d): new connections are dropped", f.most)
	}
	return c, true
}

// watchFlows logs when the table gets full, and when it no longer is, until ctx
// ends.
func watchFlows(ctx context.Context, read func() flows, log *slog.Logger) {
	tick := time.NewTicker(conntrackEvery)
	defer tick.Stop()
	last := ""
	for {
		c, full := read().condition()
		switch {
		case full && c.What != last:
			log.Warn(c.What, "fix", c.Fix)
		case !full && last != "":
			log.Info("the kernel's connection tracking table has room again")
		}
		last = c.What
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
