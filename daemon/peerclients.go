package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"smartdns/internal/wholefile"
	"smartdns/routing/wg"
	"smartdns/web/api"
)

// A NewPeer is a client that a far end is to get.
type NewPeer struct {
	Name      string
	File      string         // the far end's; a word as for PeerDown
	Endpoint  string         // HOST or HOST:PORT, where clients find this host
	Addresses []netip.Addr   // nil: the next that are free
	LAN       []netip.Prefix // networks behind it
	Allowed   []netip.Prefix // what it sends into the tunnel; nil: everything
	DNS       []string       // nil: public servers; empty: none
	Out       string         // its file; "": NAME.conf here
	Links     wg.Links       // as in PeerOptions
}

// AddedPeer is what became of it.
type AddedPeer struct {
	Out     string // the client's file
	File    string // the far end's
	Client  wg.ClientFile
	Allowed []netip.Prefix // its addresses, and the networks behind it
	Live    bool           // the far end is up, and has it
}

// PeerAdd gives a far end a new client: its section in the far end's file, the
// device if that is up, and a wg-quick file of its own that only its owner can
// read. Nothing is overwritten, and nothing is left when it fails.
func PeerAdd(ctx context.Context, o Options, n NewPeer) (AddedPeer, error) {
	if !quickName.MatchString(n.Name) {
		return AddedPeer{}, fmt.Errorf("%q cannot be the name of a client: its file and its interface will be called so (up to 15 letters, digits and _=+.-)", n.Name)
	}
	release, err := lockPeers(o)
	if err != nil {
		return AddedPeer{}, err
	}
	defer release()
	at, file, text, err := readFarEnd(o, n.File)
	if err != nil {
		return AddedPeer{}, err
	}
	want := wg.NewClient{Name: n.Name, Addresses: n.Addresses, Networks: n.LAN, Allowed: n.Allowed, DNS: n.DNS}
	if want.Endpoint, err = clientEndpoint(n.Endpoint, file); err != nil {
		return AddedPeer{}, err
	}
	if want.Allowed == nil {
		want.Allowed = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	if want.DNS == nil {
		want.DNS = publicDNS(file)
	}
	with, client, peer, err := wg.AddClient(text, file, want)
	if err != nil {
		return AddedPeer{}, err
	}
	a := AddedPeer{Out: n.Out, File: at.File, Client: client, Allowed: peer.AllowedIPs}
	if a.Out == "" {
		a.Out = n.Name + ".conf"
	}
	if err := writeNew(a.Out, string(client)); err != nil {
		return AddedPeer{}, err
	}
	a.Live, err = replaceFarEnd(ctx, o, at, text, with, n.Links)
	if err != nil {
		return AddedPeer{}, errors.Join(err, os.Remove(a.Out))
	}
	return a, nil
}

// PeerRemove takes a client from a far end: from its file and, if it is up, from
// the device. The client is given by name or public key.
func PeerRemove(ctx context.Context, o Options, who, word string, links wg.Links) (file string, live bool, err error) {
	release, err := lockPeers(o)
	if err != nil {
		return "", false, err
	}
	defer release()
	at, config, text, err := readFarEnd(o, word)
	if err != nil {
		return "", false, err
	}
	without, _, err := wg.RemoveClient(text, config, who)
	if err != nil {
		return "", false, err
	}
	live, err = replaceFarEnd(ctx, o, at, text, without, links)
	return at.File, live, err
}

// readFarEnd reads the file of the far end that a word means.
func readFarEnd(o Options, word string) (peerState, *wg.Config, string, error) {
	at, err := peerWord(o, word)
	if err != nil {
		return at, nil, "", err
	}
	file, err := wg.ParseFile(at.File)
	if err == nil {
		err = file.CheckFarEnd()
	}
	if err != nil {
		return at, nil, "", err
	}
	text, err := os.ReadFile(at.File)
	if err != nil {
		return at, nil, "", fmt.Errorf("reading the far end's file: %w", err)
	}
	return at, file, string(text), nil
}

// replaceFarEnd gives the far end's file another text and, where it is up,
// brings it to that; if this fails, both are as they were.
func replaceFarEnd(ctx context.Context, o Options, at peerState, old, text string, links wg.Links) (live bool, err error) {
	path, err := filepath.EvalSymlinks(at.File) // a link stays one
	if err != nil {
		return false, fmt.Errorf("finding the far end's file: %w", err)
	}
	if err := wholefile.ReplaceBytes(path, []byte(text)); err != nil {
		return false, fmt.Errorf("writing the far end's file: %w", err)
	}
	up, ok := readPeer(o, at.Name)
	if !ok || !up.Made || up.File != at.File {
		return false, nil
	}
	if _, err := wg.Look(at.Name); err != nil {
		return false, nil // its process was killed
	}
	f, err := openFarEnd(o, up, links)
	if err != nil {
		return false, err
	}
	defer f.close()
	if err := f.apply(ctx, wg.Kernel); err != nil {
		return false, errors.Join(err, wholefile.ReplaceBytes(path, []byte(old)))
	}
	return true, nil
}

// clientEndpoint is where clients find the far end of a file.
func clientEndpoint(said string, file *wg.Config) (wg.Endpoint, error) {
	if said == "" {
		return wg.Endpoint{}, errors.New("where do clients find this host? Write --endpoint HOST or HOST:PORT")
	}
	e, err := wg.ParseEndpoint(said)
	if err == nil {
		return e, nil
	}
	host := strings.Trim(said, "[]")
	if a, aerr := netip.ParseAddr(host); aerr == nil && a.Is6() {
		host = "[" + host + "]"
	} else if strings.Contains(host, ":") {
		return wg.Endpoint{}, fmt.Errorf("--endpoint: %w", err)
	}
	if file.ListenPort == 0 {
		return wg.Endpoint{}, fmt.Errorf("%s has no ListenPort, so that clients could not find it again: write one, like ListenPort = 51820", file.File)
	}
	if e, err = wg.ParseEndpoint(host + ":" + strconv.Itoa(int(file.ListenPort))); err != nil {
		return wg.Endpoint{}, fmt.Errorf("--endpoint: %w", err)
	}
	return e, nil
}

// publicDNS are servers of which a client inside of the tunnel can reach one.
func publicDNS(file *wg.Config) []string {
	for _, a := range file.Addresses {
		if a.Addr().Is4() {
			return []string{"1.1.1.1", "8.8.8.8"}
		}
	}
	return []string{"2606:4700:4700::1111", "2001:4860:4860::8888"}
}

// writeNew writes a file that must not be there, for its owner alone.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: give another --out, or remove it", path)
	}
	if err != nil {
		return fmt.Errorf("writing the client's file: %w", err)
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing the client's file: %w", err), os.Remove(path))
	}
	return nil
}

// ReadClientFile reads a wg-quick file that is to be shown to a phone. The error
// is that of a file that no phone would take.
func ReadClientFile(path string) (wg.ClientFile, error) {
	if _, err := wg.ParseFile(path); err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the client's file: %w", err)
	}
	return wg.ClientFile(text), nil
}

// PeerList says which far ends are up, or what of the one that a word means, and
// who its clients are.
func PeerList(o Options, word string) (api.FarEnds, error) {
	out := api.FarEnds{Schema: api.Schema, FarEnds: []api.FarEnd{}}
	ends := peersUp(o)
	if word != "" {
		at, err := peerWord(o, word)
		if err != nil {
			return out, err
		}
		ends = []peerState{at}
	}
	for _, at := range ends {
		file, err := wg.ParseFile(at.File)
		if err != nil {
			return out, err
		}
		text, err := os.ReadFile(at.File)
		if err != nil {
			return out, fmt.Errorf("reading the far end's file: %w", err)
		}
		out.FarEnds = append(out.FarEnds, shownFarEnd(at, file, string(text)))
	}
	return out, nil
}

func shownFarEnd(at peerState, file *wg.Config, text string) api.FarEnd {
	e := api.FarEnd{Name: at.Name, File: at.File, PublicKey: file.PrivateKey.PublicKey().String(), Port: file.ListenPort, Clients: []api.FarClient{}}
	var seen wg.Observation
	if at.Made {
		var err error
		if seen, err = wg.Look(at.Name); err == nil {
			e.Up, e.Device = true, string(seen.Kind)
			e.PID, _ = holder(peerInstanceName + at.Name)
		}
	}
	for _, p := range wg.Clients(text, file) {
		c := api.FarClient{Name: p.Name, PublicKey: p.PublicKey.String(), AllowedIPs: append([]netip.Prefix{}, p.AllowedIPs...)}
		if s, ok := seen.Peers[p.PublicKey]; ok {
			c.Received, c.Sent = s.RX, s.TX
			if s.Endpoint.IsValid() {
				c.Endpoint = s.Endpoint.String()
			}
			if !s.Handshake.IsZero() {
				c.Handshake = &s.Handshake
			}
		}
		e.Clients = append(e.Clients, c)
	}
	return e
}
