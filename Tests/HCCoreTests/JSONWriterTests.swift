import HCCore
import HCTesting
import Testing

@Suite("JSON, written")
struct JSONWriterTests {
    @Test("structure, commas and every kind of member")
    func structure() throws {
        let uuid = try #require(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
        let time = try #require(Timestamp(rfc3339: "2026-03-08T14:00:00Z"))
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("id", uuid)
        writer.member("at", time)
        writer.member("until", nil as Timestamp?)
        writer.member("born", CalendarDate.first)
        writer.member("name", "Ada")
        writer.member("nickname", nil as String?)
        writer.member("count", 3)
        writer.member("large", Int64.min)
        writer.member("ok", true)
        writer.member("tags", ["a", "b"])
        writer.key("items")
        writer.beginArray()
        writer.beginObject()
        writer.endObject()
        writer.null()
        writer.integer(UInt64.max)
        writer.double(0.5)
        writer.double(.infinity)
        writer.beginArray()
        writer.endArray()
        writer.endArray()
        writer.key("dyn\"amic")
        writer.raw(Array("{}".utf8))
        writer.member("tree", ["x": [1, nil]])
        writer.endObject()
        #expect(
            writer.finish().string == #"{"id":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f","#
                + #""at":"2026-03-08T14:00:00Z","until":null,"born":"0001-01-01","name":"Ada","#
                + #""nickname":null,"count":3,"large":-9223372036854775808,"ok":true,"#
                + #""tags":["a","b"],"items":[{},null,18446744073709551615,0.5,null,[]],"#
                + #""dyn\"amic":{},"tree":{"x":[1,null]}}"#)
    }

    @Test(
        "strings are escaped where they must be and nowhere else",
        arguments: [
            ("", #""""#), ("plain", #""plain""#), ("\"", #""\"""#), ("\\", #""\\""#),
            ("a\"b\\c", #""a\"b\\c""#), ("\n\r\t", #""\n\r\t""#),
            ("\0\u{1}\u{1f}", #""\u0000\u0001\u001f""#), ("\u{8}\u{c}", #""\u0008\u000c""#),
            ("é€𝄞/\u{7f}\u{2028}", "\"é€𝄞/\u{7f}\u{2028}\""), ("end\n", #""end\n""#),
        ])
    func escapes(text: String, json: String) throws {
        #expect(JSONValue.string(text).text == json)
        #expect(try JSONReader.parse(json) == .string(text))
    }

    @Test("a string of any length reads back as itself, with and without escapes")
    func lengths() throws {
        for count in 0...300 {
            for end in ["", "\"", "\n", "é"] {
                let text = String(repeating: "x", count: count) + end
                var writer = JSONWriter()
                writer.beginObject()
                writer.member("first", 1)
                writer.member("text", text)
                writer.key(text)
                writer.string(text)
                writer.endObject()
                guard case .object(let read) = try JSONReader.parse(writer.finish().string) else {
                    Issue.record("no object of \(count) and \(end)")
                    return
                }
                #expect(read.names == ["first", "text", text])
                #expect(read["text"] == .string(text) && read[text] == .string(text))
            }
        }
    }

    @Test("what is put together in one piece stands between the others")
    func pieces() throws {
        var writer = JSONWriter()
        writer.beginObject()
        writer.raw(atMost: 5) { $0.append("\"a\":1") }
        writer.member("b", 2)
        writer.key("c")
        writer.beginArray()
        for number in 3...4 {
            writer.raw(atMost: 8) { text in
                text.append(UInt8(ascii: "["))
                text.append(decimal: Int64(number))
                text.append([UInt8](",".utf8))
                text.append(decimal: Int64(-number))
                text.append(UInt8(ascii: "]"))
            }
        }
        writer.endArray()
        writer.endObject()
        #expect(writer.finish().string == #"{"a":1,"b":2,"c":[[3,-3],[4,-4]]}"#)
    }

    @Test("doubles read back as the same number")
    func doubles() throws {
        var random = SeededRandom(seed: 64)
        for _ in 0..<2000 {
            let value = Double(bitPattern: random.next())
            guard value.isFinite else { continue }
            let read = try JSONReader.parse(JSONValue.double(value).text)
            #expect(read.asDouble == value, "seed \(random.seed)")
        }
    }

    @Test("a buffer handed over is filled behind what it holds")
    func appending() {
        var buffer = ByteBuffer(string: "data: ")
        var writer = JSONWriter(appendingTo: consume buffer)
        writer.integer(1)
        buffer = writer.finish()
        #expect(buffer.string == "data: 1")
    }
}
