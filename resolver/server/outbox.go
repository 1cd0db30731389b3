package server

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outbox sends the handler's answers by one socket: those that are ready at
// about the same time in one system call.
type outbox struct {
	raw  syscall.RawConn
	done *sync.Pool // takes packets that are answered

	mu      sync.Mutex // guards following
	ready   []*packet
	sending bool // somebody is

	out  [batchSize]mmsghdr // of who is sending
	vecs [batchSize]unix.Iovec
	sent []*packet
}

// put sends p's reply, or leaves it to who is sending.
func (o *outbox) put(p *packet) {
	o.mu.Lock()
	o.ready = append(o.ready, p)
	if o.sending {
		o.mu.Unlock()
		return
	}
	o.sending = true
	o.mu.Unlock()
	runtime.Gosched() // whoever has an answer by now adds it first
	for {
		o.mu.Lock()
		if len(o.ready) == 0 {
			o.sending = false
			o.mu.Unlock()
			return
		}
		o.sent, o.ready = o.ready, o.sent[:0]
		o.mu.Unlock()
		for rest := o.sent; len(rest) > 0; {
			n := min(len(rest), batchSize)
			o.send(rest[:n])
			rest = rest[n:]
		}
		for i, p := range o.sent {
			p.reply, o.sent[i] = nil, nil
			o.done.Put(p)
		}
	}
}

// send sends the answers, from the addresses that were asked: the packet info
// that came with a query goes back with its answer, where the kernel reads it
// as the source (RFC 2181 section 4.1). An answer that cannot be sent is an
// answer lost on the way.
func (o *outbox) send(all []*packet) {
	for i, p := range all {
		h := &o.out[i]
		o.vecs[i].Base = &p.reply[0]
		o.vecs[i].SetLen(len(p.reply))
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.from)), p.fromLen
		h.Iov = &o.vecs[i]
		h.SetIovlen(1)
		h.Control = nil
		h.SetControllen(0)
		if oob := source(p.oob[:p.on]); len(oob) > 0 {
			h.Control = &oob[0]
			h.SetControllen(len(oob))
		}
	}
	next := 0
	_ = o.raw.Write(func(fd uintptr) bool {
		for next < len(all) {
			n, errno := sendmmsg(fd, o.out[next:len(all)])
			switch errno {
			case 0:
				next += n
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				next++
			}
		}
		return true
	})
	clear(o.out[:len(all)]) // keeps no answer alive
	clear(o.vecs[:len(all)])
}
