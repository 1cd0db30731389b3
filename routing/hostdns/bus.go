package hostdns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// SystemBus is where the system bus is, unless the environment says otherwise
// (DBUS_SYSTEM_BUS_ADDRESS).
const SystemBus = "unix:path=/run/dbus/system_bus_socket"

const (
	busName      = "org.freedesktop.DBus"
	properties   = "org.freedesktop.DBus.Properties"
	resolvedName = "org.freedesktop.resolve1"
	networkdName = "org.freedesktop.network1"
	nmName       = "org.freedesktop.NetworkManager"
)

// bus is a connection to the system bus, or the lack of one. No call through it
// starts a program.
type bus struct{ conn *dbus.Conn }

// dial connects to the bus at address. A host without a bus has nobody there.
func dial(ctx context.Context, address string) bus {
	if address == "" {
		return bus{}
	}
	conn, err := connect(ctx, address)
	if err != nil {
		return bus{}
	}
	return bus{conn}
}

// connect is dbus.Connect for a bus that may not answer.
func connect(ctx context.Context, address string) (*dbus.Conn, error) {
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := dbus.Connect(address)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (b bus) close() {
	if b.conn != nil {
		_ = b.conn.Close() // nothing is on its way
	}
}

// has reports whether a program of this host has name: one in another network
// namespace, whose bus we see all the same, has links of its own.
func (b bus) has(ctx context.Context, name string) bool {
	if b.conn == nil {
		return false
	}
	var pid uint32
	if b.conn.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixProcessID", 0, name).Store(&pid) != nil {
		return false // nobody has it
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	ours, _ := os.Readlink("/proc/thread-self/ns/net")
	return err != nil || theirs == ours // what we may not see is taken for ours
}

// call is one method of one object.
type call struct {
	dest   string
	path   dbus.ObjectPath
	method string // with its interface
	args   []any
}

func (c call) String() string { return c.method[strings.LastIndexByte(c.method, '.')+1:] }

// all makes calls without waiting between them, so that the program sees them
// as one, and returns the first error.
func (b bus) all(ctx context.Context, calls ...call) error {
	pending := make([]*dbus.Call, len(calls))
	for i, c := range calls {
		pending[i] = b.conn.Object(c.dest, c.path).GoWithContext(ctx, c.method, dbus.FlagNoAutoStart, nil, c.args...)
	}
	var first error
	for i, p := range pending {
		select {
		case <-p.Done:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", calls[i], ctx.Err())
		}
		if p.Err != nil && first == nil {
			first = fmt.Errorf("%s: %w", calls[i], p.Err)
		}
	}
	return first
}

// property stores one of an object's into value.
func (b bus) property(ctx context.Context, dest string, path dbus.ObjectPath, iface, name string, value any) error {
	var v dbus.Variant
	err := b.conn.Object(dest, path).CallWithContext(ctx, properties+".Get", dbus.FlagNoAutoStart, iface, name).Store(&v)
	if err == nil {
		err = v.Store(value)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// withRight adds what is missing when err says that we may not.
func withRight(err error) error {
	for _, name := range []string{busName + ".Error.AccessDenied", busName + ".Error.InteractiveAuthorizationRequired"} {
		if isBusError(err, name) {
			return fmt.Errorf("%w: root may, and who has polkit's leave for %s.* or %s.settings.modify.global-dns", err, resolvedName, nmName)
		}
	}
	return err
}

// isBusError reports whether err is the D-Bus error of that name.
func isBusError(err error, name string) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && e.Name == name
}

// busSigns sends nil for each sign on the bus that somebody else's program now
// resolves otherwise, until ctx ends; it comes back when the bus does.
func busSigns(ctx context.Context, address string, signs chan<- error) {
	for ctx.Err() == nil {
		conn, err := connect(ctx, address)
		if err != nil { // most hosts without a bus never have one
			waitFor(ctx, time.Minute)
			continue
		}
		if followBus(ctx, conn, signs) != nil {
			waitFor(ctx, patience)
		}
		_ = conn.Close()
	}
}

func followBus(ctx context.Context, conn *dbus.Conn, signs chan<- error) error {
	heard := make(chan *dbus.Signal, 16)
	conn.Signal(heard)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, resolvedName)},
		{dbus.WithMatchSender(busName), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, nmName)},
		{dbus.WithMatchSender(resolvedName), dbus.WithMatchInterface(properties), dbus.WithMatchObjectPath(resolvedPath)},
		{dbus.WithMatchSender(nmName), dbus.WithMatchInterface(properties), dbus.WithMatchObjectPath(nmPath)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return err
		}
	}
	sign(signs) // what happened until now
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s, ok := <-heard:
			if !ok {
				return errors.New("the bus is gone")
			}
			if matters(s) {
				sign(signs)
			}
		}
	}
}

// matters reports whether a signal says that a program came up, or that it
// resolves otherwise. One that goes is about to come back, or is missed when
// somebody else writes resolv.conf.
func matters(s *dbus.Signal) bool {
	if len(s.Body) < 2 {
		return false
	}
	switch s.Name {
	case busName + ".NameOwnerChanged":
		now, ok := s.Body[len(s.Body)-1].(string)
		return ok && now != ""
	case properties + ".PropertiesChanged":
		changed, _ := s.Body[1].(map[string]dbus.Variant)
		_, dns := changed["DNS"]
		_, global := changed[nmGlobal]
		return dns || global
	}
	return false
}
