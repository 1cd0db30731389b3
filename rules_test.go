package smartdns

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport says which packages of ours each package may import, and is the
// whole list: what is not there is forbidden. Tests may import anything.
var mayImport = map[string][]string{
	"cmd/smartdns":          {"daemon", "configs", "configs/draft", "configs/units", "lab", "web/api"},
	"configs":               {"routing", "resolver/dnsname"},
	"configs/draft":         {"configs", "internal/wholefile"}, // writes files for people who have none: the reader of ours must not know those of others
	"configs/units":         {"internal/wholefile"},            // what starts us at boot: files for another program, and how they are put in place
	"resolver":              {"resolver/policy", "resolver/cache", "resolver/upstream", "resolver/wire", "resolver/dnsname", "resolver/work", "geo", "routing"},
	"resolver/server":       {"resolver", "resolver/cache", "resolver/wire", "resolver/work"},
	"resolver/work":         {}, // goroutines and deadlines, which server and resolver share alike
	"resolver/policy":       {"resolver/dnsname", "geo", "routing"},
	"resolver/cache":        {"resolver/wire", "resolver/dnsname"},
	"resolver/upstream":     {"resolver/wire", "resolver/dnsname"},
	"resolver/wire":         {},
	"resolver/dnsname":      {},
	"geo":                   {"geo/list"},
	"geo/list":              {"resolver/dnsname"},
	"geo/update":            {"geo/list", "internal/wholefile"},
	"geo/internal/gen":      {"geo", "geo/list"},
	"nft":                   {"routing"},
	"routing":               {},
	"routing/linux":         {"routing", "internal/wholefile"},
	"routing/wg":            {"routing", "internal/wholefile"},
	"routing/hostdns":       {"routing", "internal/wholefile"},
	"routing/routingtest":   {"routing"},
	"geo/geotest":           {},
	"resolver/resolvertest": {"resolver", "resolver/policy", "resolver/cache", "resolver/upstream", "resolver/wire", "resolver/dnsname", "geo", "routing"},
	"web":                   {"web/api"},
	"web/api":               {},
	"internal/wholefile":    {}, // how a file is replaced is written once, for every leaf that keeps one
}

// stdlibOnly are the packages without any third-party import.
var stdlibOnly = []string{"routing", "resolver/dnsname", "resolver/wire", "web/api", "internal/wholefile"}

// soleImporters names, for a third-party module, the only packages that may
// import it, and why.
var soleImporters = []struct {
	module string
	by     []string
	why    string
}{
	{"github.com/vishvananda/netlink", []string{"routing/linux"}, "rtnetlink has one door"},
	{"github.com/google/nftables", []string{"nft"}, "nftables has one door"},
	{"golang.zx2c4.com/wireguard/wgctrl", []string{"routing/wg"}, "WireGuard has one door"},
	{"golang.zx2c4.com/wireguard", []string{"routing/wg"}, "WireGuard has one door"},
	{"github.com/miekg/dns", []string{"resolver", "resolver/policy", "resolver/cache", "resolver/upstream", "resolver/wire", "resolver/server", "resolver/resolvertest"}, "only the query path speaks DNS"},
	{"github.com/prometheus/client_golang", []string{"web"}, "metrics belong to the HTTP edge"},
	{"github.com/pelletier/go-toml/v2", []string{"configs"}, "only configs reads the file"},
	{"go.yaml.in/yaml/v3", []string{"configs/draft"}, "only the files of others are YAML"},
	{"github.com/vbauerster/mpb/v8", []string{"cmd/smartdns"}, "only cmd draws on a terminal"},
	{"aead.dev/minisign", []string{"geo/update", "configs"}, "signatures are read by who fetches, keys by who reads the file"},
	{"github.com/godbus/dbus/v5", []string{"routing/hostdns"}, "only whom this host asks is said on the bus"},
	{"github.com/boombuler/barcode", []string{"cmd/smartdns"}, "only cmd draws on a terminal"},
	{"github.com/spf13/cobra", []string{"cmd/smartdns"}, "only cmd has flags"},
}

// unrestricted packages may import anything.
func unrestricted(pkg string) bool {
	return pkg == "daemon" || pkg == "lab" || strings.HasPrefix(pkg, "lab/")
}

type source struct {
	path string // from the root
	pkg  string // its directory
	test bool
	file *ast.File
	fset *token.FileSet
	text string
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(p) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg := path.Dir(p)
		test := strings.HasSuffix(p, "_test.go") || strings.HasSuffix(pkg, "test")
		all = append(all, source{p, pkg, test, f, fset, string(text)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d Go files: the walk does not see the tree", len(all))
	}
	return all
}

func (s source) at(n ast.Node) string { return s.fset.Position(n.Pos()).String() }

func (s source) imports() map[string]ast.Node {
	m := map[string]ast.Node{}
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		m[p] = i
	}
	return m
}

func TestImportTable(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || unrestricted(s.pkg) {
			continue
		}
		allowed, known := mayImport[s.pkg]
		if !known && s.pkg != "." {
			t.Errorf("%s: package %s is not in the import table of rules_test.go", s.path, s.pkg)
			continue
		}
		for imp, at := range s.imports() {
			if ours, ok := strings.CutPrefix(imp, "smartdns/"); ok {
				if !slices.Contains(allowed, ours) {
					t.Errorf("%s: %s may not import %s", s.at(at), s.pkg, ours)
				}
				continue
			}
			third := strings.Contains(strings.Split(imp, "/")[0], ".")
			if third && slices.Contains(stdlibOnly, s.pkg) {
				t.Errorf("%s: %s imports the standard library only, not %s", s.at(at), s.pkg, imp)
			}
		}
	}
}

func TestDaemonKnowsNeitherCmdNorLab(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg != "daemon" || s.test {
			continue
		}
		for imp, at := range s.imports() {
			if strings.HasPrefix(imp, "smartdns/cmd") || strings.HasPrefix(imp, "smartdns/lab") {
				t.Errorf("%s: daemon may not import %s", s.at(at), imp)
			}
		}
	}
}

func TestOneDoorPerLibrary(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.pkg, "lab") {
			continue
		}
		for imp, at := range s.imports() {
			for _, r := range soleImporters {
				if imp != r.module && !strings.HasPrefix(imp, r.module+"/") {
					continue
				}
				if !slices.Contains(r.by, s.pkg) {
					t.Errorf("%s: only %s may import %s: %s", s.at(at), strings.Join(r.by, ", "), r.module, r.why)
				}
				if r.module == "golang.zx2c4.com/wireguard" && !strings.HasPrefix(imp, "golang.zx2c4.com/wireguard/wgctrl") && path.Base(s.path) != "userspace.go" {
					t.Errorf("%s: the embedded device belongs to userspace.go alone", s.at(at))
				}
				break
			}
		}
	}
}

// forbidden imports, and who may have them all the same.
var forbidden = []struct {
	imp string
	ok  func(source) bool
	why string
}{
	{"os/exec", func(s source) bool { return strings.HasPrefix(s.pkg, "lab") || s.path == "routing/wg/hook.go" }, "we speak to the kernel, not to programs; hooks, where they are allowed, are a shell's"},
	{"testing", func(s source) bool { return strings.HasSuffix(s.pkg, "test") }, "production code has no tests in it"},
	{"math/rand", func(source) bool { return false }, "IDs and ports are not guessable"},
	{"github.com/vishvananda/netns", func(s source) bool { return strings.HasPrefix(s.pkg, "lab") }, "the daemon stays in its namespace"},
}

func TestForbiddenImports(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		for imp, at := range s.imports() {
			for _, f := range forbidden {
				if (imp == f.imp || strings.HasPrefix(imp, f.imp+"/")) && !f.ok(s) {
					t.Errorf("%s: %s is forbidden here: %s", s.at(at), imp, f.why)
				}
			}
		}
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	docs := map[string][]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		docs[s.pkg] = append(docs[s.pkg], "")
		if s.file.Doc != nil {
			docs[s.pkg] = append(docs[s.pkg], s.path)
		}
	}
	for pkg, d := range docs {
		d = slices.DeleteFunc(d, func(s string) bool { return s == "" })
		if len(d) != 1 {
			t.Errorf("package %s has %d doc comments %v, want 1", pkg, len(d), d)
		}
	}
}

const (
	maxFields  = 14 // of a struct
	maxMethods = 4  // of an interface
	maxLines   = 620
)

func TestShapes(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines: split it by subject", s.path, n)
		}
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				switch typ := n.Type.(type) {
				case *ast.StructType:
					fields := 0
					for _, f := range typ.Fields.List {
						fields += max(1, len(f.Names))
					}
					if fields > maxFields {
						t.Errorf("%s: struct %s has %d fields: split it by the owner of the state", s.at(n), n.Name, fields)
					}
				case *ast.InterfaceType:
					if m := typ.Methods.NumFields(); m > maxMethods {
						t.Errorf("%s: interface %s has %d methods, more than %d", s.at(n), n.Name, m, maxMethods)
					}
				}
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: init is forbidden: construct it where it is used", s.at(n))
				}
			}
			return true
		})
	}
}

// tableCall are functions that build a table once, at start, from constants.
var tableCall = regexp.MustCompile(`^(errors\.New|fmt\.Errorf|regexp\.MustCompile|netip\.(MustParse\w+|\w+From\w*|PrefixFrom)|strings\.NewReplacer|time\.Unix|\*ast\.ArrayType|.*\.Table)$`)

func TestNoGlobalState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if v.Names[0].Name == "_" || embeds(g, v) {
					continue
				}
				if len(v.Values) == 0 {
					t.Errorf("%s: variable %s: state belongs to a value that somebody owns", s.at(v), v.Names[0])
				}
				for _, val := range v.Values {
					switch val := val.(type) {
					case *ast.CompositeLit, *ast.SelectorExpr: // a table; another package's constant by a shorter name
					case *ast.CallExpr:
						if f := exprName(val.Fun); !tableCall.MatchString(f) {
							t.Errorf("%s: variable %s is made by %s: only errors, embeds and tables of constants may stand at package level", s.at(v), v.Names[0], f)
						}
					default:
						t.Errorf("%s: variable %s: only errors, embeds and tables of constants may stand at package level", s.at(v), v.Names[0])
					}
				}
			}
		}
	}
}

func embeds(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, c := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if c == nil {
			continue
		}
		for _, l := range c.List {
			if strings.HasPrefix(l.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

func exprName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return exprName(e.X) + "." + e.Sel.Name
	case *ast.IndexExpr:
		return exprName(e.X)
	}
	return fmt.Sprintf("%T", e)
}

// netIPAdapters are the packages that hand addresses to libraries which still
// take net.IP.
var netIPAdapters = []string{"routing/linux", "routing/wg", "nft", "resolver", "resolver/server", "resolver/upstream", "resolver/resolvertest", "geo", "geo/geotest"}

func TestAddressesAreNetip(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(s.pkg, "lab") || slices.Contains(netIPAdapters, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				switch exprName(sel) {
				case "net.IP", "net.IPNet", "net.IPMask", "net.ParseIP", "net.ParseCIDR":
					t.Errorf("%s: %s: use net/netip outside the adapters", s.at(n), exprName(sel))
				}
			}
			return true
		})
	}
}

// textRules are house rules that a regular expression sees.
var textRules = []struct {
	re  *regexp.Regexp
	in  func(source) bool
	why string
}{
	{regexp.MustCompile(`\btime\.Sleep\(`), func(s source) bool { _, bubble := s.imports()["testing/synctest"]; return s.test && !bubble }, "tests wait for events, not for time"},
	{regexp.MustCompile(`\bdns\.(Client|Exchange|ExchangeContext)\b`), inQueryPath, "miekg's client accepts answers to other questions (SECURITY 0.1)"},
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`), func(source) bool { return true }, "an issue holds what is left to do"},
	{regexp.MustCompile(`fmt\.Errorf\("failed to`), func(source) bool { return true }, `say what was being done: "adding rule: %w"`},
	{regexp.MustCompile(`fmt\.Errorf\([^\n]*: %v", err\)`), func(s source) bool { return !s.test }, "wrap errors with %w"},
	{regexp.MustCompile(`context\.(TODO)\(\)`), func(source) bool { return true }, "pass the caller's context"},
}

func inQueryPath(s source) bool { return strings.HasPrefix(s.pkg, "resolver") && !s.test }

func TestTextRules(t *testing.T) {
	for _, s := range sources(t) {
		if s.path == "rules_test.go" {
			continue
		}
		for _, r := range textRules {
			if !r.in(s) {
				continue
			}
			for _, loc := range r.re.FindAllStringIndex(s.text, -1) {
				t.Errorf("%s:%d: %s: %s", s.path, 1+strings.Count(s.text[:loc[0]], "\n"), s.text[loc[0]:loc[1]], r.why)
			}
		}
	}
}
