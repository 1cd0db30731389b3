package main

import (
	"fmt"
	"image"
	"image/color"
	"io"
	"os"
	"strings"

	"github.com/boombuler/barcode/qr"
	"golang.org/x/term"
)

// quiet is how many light modules surround a code (ISO/IEC 18004, 6.3.8).
const quiet = 4

// printQR prints text as a QR code that a phone can read off a terminal, two
// modules to a character. It does not where the terminal is too narrow.
func (p printer) printQR(text string) error {
	code, err := qr.Encode(text, qr.L, qr.Auto)
	if err != nil {
		return fmt.Errorf("making a QR code: %w", err)
	}
	size := code.Bounds().Dx() + 2*quiet
	if f, ok := p.w.(*os.File); ok {
		if have, _, err := term.GetSize(int(f.Fd())); err == nil && have < size {
			return fmt.Errorf("the QR code has %d columns and this terminal %d: make it wider or its font smaller", size, have)
		}
	}
	dark := func(x, y int) bool {
		at := image.Pt(x-quiet, y-quiet)
		return at.In(code.Bounds()) && color.GrayModel.Convert(code.At(at.X, at.Y)).(color.Gray).Y < 0x80
	}
	var b strings.Builder
	for y := 0; y < size; y += 2 {
		if p.color {
			b.WriteString("\x1b[38;5;16;48;5;231m") // black on white, whatever the terminal's own are
		}
		for x := range size {
			// Without colour, what is printed shines: terminals are mostly dark.
			b.WriteString(halves(dark(x, y) == p.color, y+1 < size && dark(x, y+1) == p.color))
		}
		if p.color {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(p.w, b.String())
	return err
}

// halves is a character of which the upper and the lower half are printed.
func halves(upper, lower bool) string {
	switch {
	case upper && lower:
		return "█"
	case upper:
		return "▀"
	case lower:
		return "▄"
	}
	return " "
}

// terse is a wg-quick file without what only people read: the smaller a code, the
// better it is read.
func terse(file string) string {
	var b strings.Builder
	for line := range strings.Lines(file) {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch key, value = strings.TrimSpace(key), strings.TrimSpace(value); {
		case ok:
			b.WriteString(key + "=" + value + "\n")
		case key != "":
			b.WriteString(key + "\n")
		}
	}
	return b.String()
}
