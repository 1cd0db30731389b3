package conformance_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// dig asks our server through a tap, and returns the one reply that came back,
// as it was on the wire: what dig prints of it leaves out too much.
func dig(t *testing.T, args string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	fields := strings.Fields(args)
	replies := make(chan []byte, 1)
	var port string
	if strings.Contains(args, "+tcp") {
		port = tapTCP(t, replies)
	} else {
		port = tapUDP(t, replies)
	}
	all := append([]string{"@127.0.0.1", "-p", port, "+tries=1", "+timeout=8", "+rec"}, fields...)
	out, err := exec.CommandContext(ctx, "dig", all...).CombinedOutput()
	if err != nil {
		t.Errorf("dig %s: %v\n%s", args, err, out)
		return nil
	}
	return <-replies
}

func tapUDP(t *testing.T, replies chan<- []byte) (port string) {
	t.Helper()
	client, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer client.Close()
		reply, err := relayUDP(client)
		if err != nil {
			t.Error(err)
		}
		replies <- reply
	}()
	return fmt.Sprint(client.LocalAddr().(*net.UDPAddr).Port)
}

func relayUDP(client net.PacketConn) ([]byte, error) {
	deadline := time.Now().Add(8 * time.Second)
	client.SetDeadline(deadline)
	b := make([]byte, 65535)
	n, from, err := client.ReadFrom(b)
	if err != nil {
		return nil, fmt.Errorf("reading from dig: %w", err)
	}
	server, err := net.Dial("udp4", ours)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	server.SetDeadline(deadline)
	if _, err := server.Write(b[:n]); err != nil {
		return nil, err
	}
	if n, err = server.Read(b); err != nil {
		return nil, fmt.Errorf("reading the reply: %w", err)
	}
	_, err = client.WriteTo(b[:n], from)
	return b[:n], err
}

func tapTCP(t *testing.T, replies chan<- []byte) (port string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		reply, err := relayTCP(l)
		if err != nil {
			t.Error(err)
		}
		replies <- reply
	}()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

func relayTCP(l net.Listener) ([]byte, error) {
	client, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	server, err := net.Dial("tcp4", ours)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	for _, c := range []net.Conn{client, server} {
		c.SetDeadline(time.Now().Add(8 * time.Second))
	}
	go io.Copy(server, client)
	b, err := readFramed(server)
	if err != nil {
		return nil, fmt.Errorf("reading the reply: %w", err)
	}
	_, err = client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return b, err
}

// readFramed reads one message of a TCP connection.
func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}
