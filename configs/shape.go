package configs

import "reflect"

// Shape is how the value of a key is written.
type Shape int

// The shapes.
const (
	ShapeNoKey      Shape = iota // there is no such key
	ShapeWord                    // a string
	ShapeList                    // a list
	ShapeWordOrList              // a string, or a list of strings
	ShapeYesNo                   // true or false
	ShapeNumber                  // a whole number
	ShapeTable                   // keys of its own
)

// ShapeOf returns how the value of a key is written in tables of a family:
// "listen", "tunnel"; "names" and "addresses" are the lines of [decide]. The
// family "" has the tables themselves.
func ShapeOf(family, key string) Shape {
	table := reflect.TypeFor[rawConfig]()
	switch family {
	case "":
	case "tunnel":
		table = reflect.TypeFor[rawTunnel]()
	case "side":
		table = reflect.TypeFor[rawSide]()
	case "list":
		table = reflect.TypeFor[rawList]()
	case "names":
		table = reflect.TypeFor[rawNameRule]()
	case "addresses":
		table = reflect.TypeFor[rawAddressRule]()
	default:
		field, ok := fieldOf(reflect.New(table).Elem(), family)
		if !ok || takes(field) {
			return ShapeNoKey
		}
		table = field.Type()
	}
	field, ok := fieldOf(reflect.New(table).Elem(), key)
	if !ok {
		return ShapeNoKey
	}
	switch field.Interface().(type) {
	case rawString, rawDuration:
		return ShapeWord
	case rawOneOrMore:
		return ShapeWordOrList
	case rawBool:
		return ShapeYesNo
	case rawInt:
		return ShapeNumber
	case rawStrings, rawServers, rawListeners:
		return ShapeList
	}
	return ShapeTable
}
