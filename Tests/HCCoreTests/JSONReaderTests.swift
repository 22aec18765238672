import HCCore
import HCTesting
import Testing

@Suite("JSON, read")
struct JSONReaderTests {
    @Test(
        "values",
        arguments: [
            ("null", .null), ("true", true), (" \t\r\nfalse ", false), ("0", 0), ("-0", 0),
            ("9223372036854775807", .integer(.max)), ("-9223372036854775808", .integer(.min)),
            ("9223372036854775808", .double(0x1p63)),
            ("-9223372036854775809", .double(-0x1p63)),
            ("1.0", .double(1)), ("-1.5e3", .double(-1500)), ("1E+2", .double(100)),
            ("1e-2", .double(0.01)), ("0.1", .double(0.1)), ("1e-999", .double(0)),
            ("1267650600228229401496703205376", .double(0x1p100)),
            (#""""#, ""), (#""a""#, "a"), (#""é€𝄞""#, "é€𝄞"),
            (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (#""x\u0041y\u00e9\u20AC""#, "xAyé€"), (#""\ud834\udd1e""#, "𝄞"),
            (#""\uDBFF\uDFFF""#, "\u{10ffff}"), (#""a\u0000b""#, "a\0b"), (#""\u007f""#, "\u{7f}"),
            ("[]", []), ("[ ]", []), ("[1,[2, [ ] ],3]", [1, [2, []], 3]),
            ("{}", [:]), (#"{ "a" : 1 , "b" : { "c" : [ null ] } }"#, ["a": 1, "b": ["c": [nil]]]),
            (#"{"":0}"#, ["": 0]), (#"{"a":1,"A":2}"#, ["a": 1, "A": 2]),
        ] as [(String, JSONValue)])
    func accepted(text: String, value: JSONValue) throws {
        #expect(try JSONReader.parse(text) == value)
    }

    @Test(
        "refusals, with the byte and the reason",
        arguments: [
            ("", 0, .unexpectedEnd), ("  ", 2, .unexpectedEnd), ("nul", 3, .unexpectedEnd),
            ("nulL", 3, .unexpectedByte), ("True", 0, .unexpectedByte), ("NaN", 0, .unexpectedByte),
            ("Infinity", 0, .unexpectedByte), ("-Infinity", 1, .invalidNumber),
            ("+1", 0, .unexpectedByte), ("01", 0, .invalidNumber), ("-01", 1, .invalidNumber),
            ("00", 0, .invalidNumber), ("-", 1, .unexpectedEnd), ("1.", 2, .unexpectedEnd),
            ("1.e5", 2, .invalidNumber), (".5", 0, .unexpectedByte), ("1e", 2, .unexpectedEnd),
            ("1e+", 3, .unexpectedEnd), ("1ex", 2, .invalidNumber), ("0x10", 1, .trailingBytes),
            ("1e999", 0, .numberOutOfRange), ("-1e999", 0, .numberOutOfRange),
            ("1 2", 2, .trailingBytes), ("{}x", 2, .trailingBytes), ("[1]]", 3, .trailingBytes),
            ("\"a", 2, .unexpectedEnd), ("\"\n\"", 1, .controlCharacter),
            ("\"a\u{0}\"", 2, .controlCharacter), ("\"\\n\t\"", 3, .controlCharacter),
            (#""\x41""#, 1, .invalidEscape), (#""\u12g4""#, 5, .invalidEscape),
            (#""\u+123""#, 3, .invalidEscape), (#""\u12"#, 5, .unexpectedEnd),
            (#""\"#, 2, .unexpectedEnd), (#""\ud800""#, 1, .loneSurrogate),
            (#""\ud800x""#, 1, .loneSurrogate), (#""\ud800\n""#, 1, .loneSurrogate),
            (#""\ud800\ud800""#, 1, .loneSurrogate), (#""\udc00\ud800""#, 1, .loneSurrogate),
            (#""a\udfff""#, 2, .loneSurrogate), (#""\ud800\u0041""#, 1, .loneSurrogate),
            ("[", 1, .unexpectedEnd), ("[1", 2, .unexpectedEnd), ("[1,", 3, .unexpectedEnd),
            ("[1,]", 3, .unexpectedByte), ("[,1]", 1, .unexpectedByte),
            ("[1 2]", 3, .unexpectedByte),
            ("[1}", 2, .unexpectedByte), ("{", 1, .unexpectedEnd), ("{1:2}", 1, .unexpectedByte),
            (#"{"a"}"#, 4, .unexpectedByte), (#"{"a":}"#, 5, .unexpectedByte),
            (#"{"a":1,}"#, 7, .unexpectedByte), (#"{"a" 1}"#, 5, .unexpectedByte),
            (#"{a:1}"#, 1, .unexpectedByte), ("{'a':1}", 1, .unexpectedByte),
            (#"{"a":1,"a":2}"#, 7, .duplicateName), (#"{"a":1,"\u0061":2}"#, 7, .duplicateName),
            (#"{"x":{"a":1,"b":2,"a":3}}"#, 18, .duplicateName),
            ("// c\n1", 0, .unexpectedByte), ("[1/**/]", 2, .unexpectedByte),
            ("\u{feff}1", 0, .unexpectedByte), ("\u{a0}1", 0, .unexpectedByte),
            ("\u{c}1", 0, .unexpectedByte),
        ] as [(String, Int, JSONError.Reason)])
    func refused(text: String, offset: Int, reason: JSONError.Reason) {
        #expect(throws: JSONError(offset: offset, reason: reason)) {
            try JSONReader.parse(text)
        }
    }

    @Test(
        "bytes that are no UTF-8 are refused where they are",
        arguments: [
            ([0x80], 0), ([0x61, 0xff], 1), ([0xc0, 0x80], 0), ([0xc1, 0xbf], 0),
            ([0xe0, 0x80, 0x80], 0), ([0x61, 0xed, 0xa0, 0x80], 1), ([0xed, 0xbf, 0xbf], 0),
            ([0xf0, 0x80, 0x80, 0x80], 0), ([0xf4, 0x90, 0x80, 0x80], 0), ([0xf5, 0x80], 0),
            ([0xc3], 0), ([0xe2, 0x82], 0), ([0xf0, 0x9f, 0x98], 0), ([0xc3, 0xa9, 0xc3, 0x28], 2),
            ([0xe2, 0x82, 0x28], 0),
        ] as [([UInt8], Int)])
    func invalidUTF8(bytes: [UInt8], offset: Int) {
        #expect(throws: JSONError(offset: offset + 1, reason: .invalidUTF8)) {
            try JSONReader.parse([0x22] + bytes + [0x22])
        }
        // After an escape and in a name too.
        #expect(throws: JSONError(offset: offset + 4, reason: .invalidUTF8)) {
            try JSONReader.parse(Array(#"{"\n"#.utf8) + bytes + Array(#"":1}"#.utf8))
        }
    }

    @Test("limits of depth, elements and bytes hold exactly")
    func limits() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(throws: Never.self) { try JSONReader.parse(nested(32)) }
        #expect(throws: JSONError(offset: 32, reason: .tooDeep)) {
            try JSONReader.parse(nested(33))
        }
        #expect(throws: JSONError(offset: 32, reason: .tooDeep)) {
            try JSONReader.parse(String(repeating: "[", count: 1_000_000))
        }
        // Depth is not used up by neighbours.
        let wide = "[" + Array(repeating: "[{}]", count: 100).joined(separator: ",") + "]"
        #expect(throws: Never.self) { try JSONReader.parse(wide) }
        var limits = JSONLimits(bytesMax: 10, depthMax: 2, elementsMax: 3)
        #expect(throws: Never.self) { try JSONReader.parse("[1,2]", limits: limits) }
        #expect(throws: JSONError(offset: 5, reason: .tooManyElements)) {
            try JSONReader.parse("[1,2,3]", limits: limits)
        }
        #expect(throws: JSONError(offset: 10, reason: .tooLarge)) {
            try JSONReader.parse("[1,2     ] ", limits: limits)
        }
        limits.bytesMax = 11
        #expect(throws: Never.self) { try JSONReader.parse("[1,2     ] ", limits: limits) }
    }

    @Test("names that look alike but are other bytes are two names")
    func names() throws {
        let value = try JSONReader.parse("{\"\u{e9}\":1,\"e\u{301}\":2}")
        #expect(value["\u{e9}"] == 1)
        #expect(value["e\u{301}"] == 2)
    }

    @Test("members keep their order, and large objects their speed and uniqueness")
    func order() throws {
        let names = (0..<5000).map { "name\(($0 * 7919) % 5000)" }
        let text = "{" + names.map { "\"\($0)\":1" }.joined(separator: ",") + "}"
        let object = try #require(try JSONReader.parse(text).asObject)
        #expect(object.names == names)
        let doubled = text.dropLast() + ",\"name42\":2}"
        #expect(throws: JSONError.self) { try JSONReader.parse(String(doubled)) }
    }

    @Test("an object finds, sets and removes members, small and large")
    func objects() {
        for size in [3, 40] {
            var object = JSONObject()
            for number in 0..<size { object.insert(.integer(Int64(number)), for: "n\(number)") }
            #expect(object.insert(9, for: "n1") == false)
            object.set("new", for: "n1")
            #expect(object.remove("n0") == 0)
            #expect(object.remove("n0") == nil)
            #expect(object["n1"] == "new")
            #expect(object["n2"] == 2)
            #expect(object["n0"] == nil)
            #expect(object.count == size - 1)
            object.set(0, for: "n0")
            #expect(object.names.last == "n0")
        }
        #expect(JSONValue.object(JSONObject())["x"] == nil)
        #expect((["a": 1, "b": 2] as JSONValue) == ["b": 2, "a": 1])
        #expect((["a": 1] as JSONValue) != ["a": 1, "b": 2])
    }

    @Test("values give themselves as the type they are")
    func accessors() {
        #expect(JSONValue.integer(3).asDouble == 3)
        #expect(JSONValue.double(3).asInteger == nil)
        #expect(JSONValue.string("3").asInteger == nil)
        #expect(JSONValue.bool(true).asBool == true)
        #expect(JSONValue.null.isNull)
        #expect(JSONValue.array([1]).asArray == [1])
        #expect(JSONValue.array([1]).kind == "an array")
    }

    @Test("random bytes and mutated texts never trap, and what is read is written the same")
    func mutations() throws {
        let seedText = Array(
            #"{"a":[1,-2.5e3,"x\u00e9\ud834\udd1e",null,true],"b":{"c":"d","e":[[],{}]}}"#.utf8)
        var random = SeededRandom(seed: 8259)
        var read = 0
        for _ in 0..<20_000 {
            var text = seedText
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let index = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0...2, using: &random) {
                case 0: text[index] = .random(in: .min ... .max, using: &random)
                case 1: text.remove(at: index)
                default:
                    text.insert(text[Int.random(in: 0..<text.count, using: &random)], at: index)
                }
            }
            guard let value = try? JSONReader.parse(text) else { continue }
            read += 1
            #expect(try JSONReader.parse(value.text) == value, "seed \(random.seed): \(text)")
        }
        #expect(read > 100)
    }
}
