package main

import (
	"bytes"
	"image"
	"image/color"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// screen is what a terminal shows of text: each character's halves as pixels of
// its colours, which are given for text without any.
func screen(text string, ink, paper uint8) image.Image {
	const scale = 4
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	img := image.NewGray(image.Rect(0, 0, columns(lines[0])*scale, 2*len(lines)*scale))
	for y, line := range lines {
		if strings.Contains(line, "\x1b[38;5;16;48;5;231m") {
			ink, paper = 0, 255
		}
		for x, r := range []rune(plain(line)) {
			for half := range 2 {
				c := paper
				if r == '█' || r == '▀' && half == 0 || r == '▄' && half == 1 {
					c = ink
				}
				for i := range scale * scale {
					img.SetGray(x*scale+i%scale, (2*y+half)*scale+i/scale, color.Gray{Y: c})
				}
			}
		}
	}
	return img
}

// What is printed is read back by a decoder, on a dark terminal and in colour,
// with the light margin that readers need, and fits a terminal.
func TestPrintedQRCodeIsRead(t *testing.T) {
	file := "# phone\n[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.9.0.200/32, fd09::200/128\nDNS = 1.1.1.1, 8.8.8.8\n\n[Peer]\n" +
		"PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nPresharedKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = exit.example.com:51820\nPersistentKeepalive = 25\n"
	want := terse(file)
	if strings.Contains(want, "#") || strings.Contains(want, " = ") || !strings.Contains(want, "[Peer]\nPublicKey=") {
		t.Errorf("terse:\n%s", want)
	}
	for _, colour := range []bool{false, true} {
		var out bytes.Buffer
		if err := (printer{w: &out, color: colour}).printQR(want); err != nil {
			t.Fatal(err)
		}
		if n := columns(strings.Split(out.String(), "\n")[0]); n > width {
			t.Errorf("%d columns", n)
		}
		img := screen(out.String(), 255, 0)
		for i := range quiet * 4 { // pixels of the margin
			if g := color.GrayModel.Convert(img.At(i, img.Bounds().Dy()/2)).(color.Gray); g.Y != 255 {
				t.Fatalf("colour %t: the margin is dark at %d", colour, i)
			}
		}
		bits, err := gozxing.NewBinaryBitmapFromImage(img)
		if err != nil {
			t.Fatal(err)
		}
		read, err := qrcode.NewQRCodeReader().Decode(bits, nil)
		if err != nil {
			t.Fatalf("colour %t: %v\n%s", colour, err, out.String())
		}
		if read.GetText() != want {
			t.Errorf("colour %t: read\n%s\nwant\n%s", colour, read.GetText(), want)
		}
	}
}
