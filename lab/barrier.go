package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// marker is a frame that says how far the sniffer has read.
type marker struct {
	nonce uint64
	round uint32
	cpu   uint32
}

func (m marker) frame() []byte {
	b := make([]byte, 60)
	for i := range 6 {
		b[i] = 0xff
	}
	b[6] = 0x02 // a locally administered sender
	binary.BigEndian.PutUint16(b[12:], markerType)
	binary.BigEndian.PutUint64(b[14:], m.nonce)
	binary.BigEndian.PutUint32(b[22:], m.round)
	binary.BigEndian.PutUint32(b[26:], m.cpu)
	return b
}

func parseMarker(b []byte) (marker, bool) {
	if len(b) < 16 {
		return marker{}, false
	}
	return marker{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}, true
}

// barrierRounds is one more than the virtual links that a packet crosses
// between a client and the sniffer: each has its own place in a CPU's queue.
const barrierRounds = 4

// flush returns when the sniffer has counted every frame sent before the call.
//
// A virtual Ethernet link puts frames into the queue of the sender's CPU, in
// order. So a marker sent from each CPU follows all that was sent there; and as
// a forwarded frame is queued once per link, the next round's markers follow
// what the last round's pushed out.
func (s *Sniffer) flush() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	for range barrierRounds {
		s.discardMarkers()
		if err := s.round(); errors.Is(err, unix.ENETDOWN) {
			return nil // nothing can be on its way
		} else if err != nil {
			return err
		}
	}
	return nil
}

// discardMarkers throws away markers of a round that was given up.
func (s *Sniffer) discardMarkers() {
	for {
		select {
		case <-s.marks:
		default:
			return
		}
	}
}

func (s *Sniffer) round() error {
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("reading CPU affinity: %w", err)
	}
	id := uint32(time.Now().UnixNano())
	sent := 0
	var err error
	onThread(func() {
		for cpu := range len(cpus) * 64 {
			if !cpus.IsSet(cpu) {
				continue
			}
			var one unix.CPUSet
			one.Set(cpu)
			if err = unix.SchedSetaffinity(0, &one); err != nil {
				return
			}
			if _, err = s.out.Write(marker{s.nonce, id, uint32(cpu)}.frame()); err != nil {
				return
			}
			sent++
		}
	})
	if err != nil {
		return fmt.Errorf("sending a marker: %w", err)
	}
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	for seen := 0; seen < sent; {
		select {
		case m := <-s.marks:
			if m.round == id {
				seen++
			}
		case <-deadline.C:
			return fmt.Errorf("waiting for markers: %d of %d came", seen, sent)
		}
	}
	return nil
}
