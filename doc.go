// Package smartdns is the root of a smart DNS resolver with integrated
// split-tunnel routing. It holds no code: only these two stories, and the house
// rules as a test.
//
// # One query
//
// A client asks for www.example.com. A listener of resolver/server reads the
// packet; resolver/wire looks at its header, opcode and question before
// anything is unpacked; the access list says whether this client may ask, and
// which view it has: the lines for some clients, the side of the listener.
//
// Asked before, the answer may be sealed: resolver/cache holds it packed, as this
// view gets it, for as long as its TTL, its marks and every rule it came from are
// as they were. Then the listener sends it at once. This is the fast lane, and
// all that it may say is what the rest of this story would.
//
// Else resolver.Resolve makes one Decision, which every reader of the story
// shares: the client, smartdns query, the log. Records of one's own come first.
// Then resolver/policy finds the first rule of the file that matches the name:
// ask a side, answer something, or "auto", which asks what was learned about the
// name, a verdict, or finds it out. resolver/cache may know that side's answer,
// fresh, or stale where no server answers in time; else resolver/upstream asks
// the side's servers, over the path the side leaves by, and drops every packet
// that is not the answer to exactly our question. A fresh answer and a cached one
// meet again here: geo gives each address a region, and the address rules turn
// that into a path; addresses that nobody may get are taken out. The marker of
// package nft puts (address, path) into the path's set, and the answer leaves
// only after the kernel has acknowledged it; only then may it be sealed. When the
// client connects, a rule of our table finds the address in that set, marks the
// flow, and the routing rule for that mark sends it into the tunnel.
//
// What is asked for often is resolved once more before it expires, by the same
// walk, with nobody waiting: a prefetch. A verdict of a week is judged again so.
//
// # One reload
//
// Somebody edits the file and runs smartdns reload. configs.Load turns the file
// into a Config, or into an error that says which line is wrong; then nothing
// else happens. daemon.Compile turns the Config into one value per package, all
// of them pure. The resolver's policy is swapped by a pointer, so no query waits,
// and the generation advances, so that no answer sealed before is given any more;
// the cache and the verdicts stay. Package routing plans the links, routes, rules
// and sysctls that should be there, reads from the kernel those that are, and
// applies the difference as steps that print as the commands an administrator
// would type; nft replaces its table's chains and static sets in one transaction
// and keeps the elements that answers have put there. Connections stay on their
// path, but for those to addresses that the file itself now sends another way.
// A netlink event, say somebody's "ip rule flush", starts the same walk from the
// kernel's end.
//
// A list that is fetched takes this way as well: geo/update replaces what is
// stored of it only by what is whole, readable and much like it, and the running
// Config is compiled again with that. A start reads what is stored, and waits
// for no mirror.
//
// A restart in place, for another program, is no stop: the program and its file
// are tried first. Then the daemon saves what it knows, stops reading its sockets
// and becomes the program on disk by exec, with the sockets and the tunnels' links
// left open. That one finds them, and the kernel as it was, and walks as after a
// crash; what clients have asked meanwhile waits in the sockets.
//
// A stop is the walk to nothing. What was learned, numbered and cached is on
// disk by then, in files that internal/wholefile replaced whole.
package smartdns
