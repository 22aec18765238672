import Glibc
import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

/// A directory of files that goes with the test.
private final class AssetFolder {
    let path: String

    init(_ files: [String: String]) throws {
        var template = Array("/tmp/hc-assets-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for (name, content) in files { try write(name, content) }
    }

    deinit {
        do {
            try Subprocess.run("/bin/rm", ["-r", path])
        } catch {
            Issue.record("\(path) is left behind: \(error)")
        }
    }

    func write(_ name: String, _ content: String) throws {
        let file = "\(path)/\(name)"
        let folder = file.prefix(upTo: file.lastIndex(of: "/") ?? file.endIndex)
        try Subprocess.run("/bin/mkdir", ["-p", String(folder)])
        try Files.replace(file, with: Array(content.utf8), mode: 0o644)
    }

    func link(_ name: String, to target: String) throws {
        guard symlink(target, "\(path)/\(name)") == 0 else { throw FixtureError("symlink failed") }
    }
}

private let site = [
    "index.html": """
    <link rel="stylesheet" href="style/main.css"><script type="module" src='/console/js/app.js'>
    </script><a href="about.html">main.css "main.css"</a> <a href="https://main.css">
    """,
    "about.html": "<a href=\"index.html\">",
    "style/main.css": "body { background: url(../images/dot.svg) } /* main.css */",
    "js/app.js":
        "import { a } from \"./lib.mjs\"; const other = \"app.css\"; const x = \"lib.mjs\";",
    "js/lib.mjs": "export const a = '" + String(repeating: "long and alike ", count: 200) + "';",
    "images/dot.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "images/dot.png": "\u{89}PNG",
    ".hidden": "secret",
]

@Suite("Names of static files")
struct AssetManifestTests {
    private func manifest(_ files: [String: String]) throws -> [String: AssetManifest.Entry] {
        let folder = try AssetFolder(files)
        let manifest = try AssetManifest(
            try AssetDirectory.read(folder.path, AssetLimits()), mount: "/console/")
        return Dictionary(manifest.entries.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    }

    private func text(_ entry: AssetManifest.Entry?) -> String {
        String(decoding: entry?.bytes ?? [], as: UTF8.self)
    }

    private func name(_ entries: [String: AssetManifest.Entry], _ prefix: String) throws -> String {
        try #require(entries.keys.first { $0.hasPrefix(prefix) })
    }

    @Test("files get names by their content, documents keep theirs, references are written in")
    func names() throws {
        let entries = try manifest(site)
        #expect(entries.count == 7)
        let css = try name(entries, "style-main.")
        let app = try name(entries, "js-app.")
        let lib = try name(entries, "js-lib.")
        let dot = try name(entries, "images-dot.")
        #expect(css.split(separator: ".").map(\.count) == [10, 16, 3])
        #expect(lib.hasSuffix(".mjs"))
        let index = text(entries[""])
        #expect(index.contains("href=\"/console/\(css)\""))
        #expect(index.contains("src='/console/\(app)'"))
        #expect(index.contains("href=\"/console/about.html\""))
        #expect(index.contains(">main.css \"main.css\"<"), "that is not where the file is")
        #expect(index.contains("\"https://main.css\""))
        #expect(text(entries["about.html"]) == "<a href=\"/console/\">")
        #expect(text(entries[css]).contains("url(/console/images-dot."))
        #expect(text(entries[css]).hasSuffix("/* main.css */"))
        let script = text(entries[app])
        #expect(script.contains("from \"/console/\(lib)\""))
        #expect(script.contains("const x = \"lib.mjs\""), "a word in a script is no path")
        #expect(dot.hasPrefix("images-dot."))
    }

    @Test("a change deep down changes every name above it")
    func chain() throws {
        let before = try manifest(site)
        var changed = site
        changed["images/dot.svg"] = "<svg xmlns='http://www.w3.org/2000/svg' id='1'/>"
        let after = try manifest(changed)
        #expect(try name(before, "style-main.") != name(after, "style-main."))
        #expect(before[""]?.hash != after[""]?.hash)
        #expect(try name(before, "js-app.") == name(after, "js-app."))
    }

    @Test("what cannot be served is refused with its reason")
    func refusals() throws {
        for (files, reason) in [
            (["index.html": "", "a.exe": ""], "no media type"),
            (["index.html": "", "noextension": ""], "no media type"),
            (["index.html": "", "a b.js": ""], "may be in a name"),
            (["index.html": "", "ä.js": ""], "may be in a name"),
            (
                ["index.html": "", "a.js": "import './b.js'", "b.js": "import './a.js'"],
                "refer to each other"
            ),
            (["about.html": ""], "there is no index.html"),
        ] {
            let folder = try AssetFolder(files)
            let error = #expect(throws: AssetError.self) {
                try AssetCatalog(directory: folder.path, mount: "/console/")
            }
            #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
            #expect(throws: AssetError.self) {
                try AssetCatalog.check(directory: folder.path, mount: "/console/")
            }
        }
        #expect(throws: AssetError.self) {
            try AssetCatalog(directory: "/nowhere", mount: "/console/")
        }
    }

    @Test("a link is refused, wherever it leads")
    func links() throws {
        let folder = try AssetFolder(["index.html": ""])
        try folder.link("passwd.txt", to: "/etc/passwd")
        let error = #expect(throws: AssetError.self) {
            try AssetCatalog(directory: folder.path, mount: "/console/")
        }
        #expect(error?.description.hasSuffix("passwd.txt: neither a file nor a directory") == true)
    }

    @Test("files, bytes and depth have their bounds, and compressed forms stop at theirs")
    func limits() throws {
        let folder = try AssetFolder(site)
        let changes: [(inout AssetLimits) -> Void] = [
            { $0.filesMax = 6 }, { $0.fileBytesMax = 1000 }, { $0.bytesMax = 3000 },
            { $0.depthMax = 0 },
        ]
        for change in changes {
            var limits = AssetLimits()
            change(&limits)
            #expect(throws: AssetError.self) {
                try AssetCatalog(directory: folder.path, mount: "/console/", limits: limits)
            }
        }
        let all = try AssetCatalog(directory: folder.path, mount: "/console/")
        #expect(all.codedBytes > 0)
    }
}

@Suite("Static files over HTTP", .onLoop)
@LoopActor
struct AssetServingTests {
    private final class Context: Sendable {}

    private func serve(_ files: [String: String] = site) throws -> (ServerFixture, AssetCatalog) {
        let folder = try AssetFolder(files)
        let catalog = try AssetCatalog(directory: folder.path, mount: "/console/")
        var router = Router<Context>()
        for pattern in ["/console/", "/console/{asset}"] {
            router.add(RouteDescription(.get, pattern, name: pattern, access: .open)) {
                request, _ in
                try catalog.response(to: request, name: request.target.segments.last ?? "")
            }
        }
        let application = Application(
            router, middleware: [], makeContext: { _, _ in Context() },
            problem: { _, _, _ in .internalError })
        return (try ServerFixture(responder: application), catalog)
    }

    private func get(
        _ fixture: ServerFixture, _ name: String, _ fields: String = "", method: String = "GET"
    ) async throws -> (RawAnswer, [UInt8]) {
        let client = try await fixture.connect()
        defer { client.close() }
        client.send(
            "\(method) /console/\(name) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\(fields)\r\n")
        try await client.end()
        let end = try #require(
            client.received.indices.dropLast(3).first {
                client.received[$0..<$0 + 4].elementsEqual([13, 10, 13, 10])
            })
        // The content may look like anything, a further answer too.
        let head = Array(client.received[..<(end + 4)])
        let answer = try #require(RawAnswer.parse(head, heads: [0]).first)
        return (answer, Array(client.received[(end + 4)...]))
    }

    @Test("a hashed file may be kept for ever, in every form")
    func immutable() async throws {
        let (fixture, catalog) = try serve()
        let name = try #require(catalog.names.first { $0.hasPrefix("js-lib.") })
        var tags: Set<String> = []
        for (accept, coding) in [
            ("", nil), ("gzip", "gzip"), ("gzip, br", "br"), ("deflate", nil),
            ("identity;q=1, gzip;q=0.5", nil),
        ] {
            let field = accept.isEmpty ? "" : "Accept-Encoding: \(accept)\r\n"
            let (answer, content) = try await get(fixture, name, field)
            #expect(answer.status == 200)
            #expect(answer.value("Content-Encoding") == coding)
            #expect(answer.values("Cache-Control") == ["public, max-age=31536000, immutable"])
            #expect(answer.value("Content-Type") == "text/javascript; charset=utf-8")
            #expect(answer.value("X-Content-Type-Options") == "nosniff")
            #expect(answer.value("Vary") == "Accept-Encoding")
            #expect(answer.value("Accept-Ranges") == "bytes")
            #expect(answer.value("Content-Length") == "\(content.count)")
            #expect(Codings.decode(content, coding) == Array((site["js/lib.mjs"] ?? "").utf8))
            let tag = try #require(answer.value("ETag"))
            #expect(tag.hasPrefix("\""))
            tags.insert(tag)
            let (head, nothing) = try await get(fixture, name, field, method: "HEAD")
            #expect(nothing.isEmpty)
            #expect(
                head.fields.filter { !["Date", "X-Request-Id"].contains($0.0) }.map(\.1)
                    == answer.fields.filter { !["Date", "X-Request-Id"].contains($0.0) }.map(\.1))
            let (same, empty) = try await get(
                fixture, name, field + "If-None-Match: \"x\", W/\(tag)\r\n")
            #expect(same.status == 304)
            #expect(empty.isEmpty)
            for name in ["ETag", "Cache-Control", "Vary"] {
                #expect(same.value(name) == answer.value(name))
            }
        }
        #expect(tags.count == 3, "each form has a tag of its own")
        await fixture.stop()
    }

    /// What a client makes of the parts of a `multipart/byteranges` answer: their heads and contents.
    private func parts(
        _ content: [UInt8], of type: String
    ) throws -> [(head: String, content: String)] {
        let boundary = try #require(type.split(separator: "boundary=").last)
        let text = String(decoding: content, as: UTF8.self)
        #expect(text.hasPrefix("\r\n--\(boundary)\r\n"))
        #expect(text.hasSuffix("\r\n--\(boundary)--\r\n"))
        return text.split(separator: "\r\n--\(boundary)").dropLast().map { part in
            let end = part.firstRange(of: "\r\n\r\n")
            return (
                String(part[..<(end?.lowerBound ?? part.endIndex)]),
                String(part[(end?.upperBound ?? part.endIndex)...])
            )
        }
    }

    @Test("a range of a file is 206, in each form with the tag and the length of that form")
    func range() async throws {
        let (fixture, catalog) = try serve()
        let name = try #require(catalog.names.first { $0.hasPrefix("js-lib.") })
        for accept in ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: br\r\n"] {
            let (whole, content) = try await get(fixture, name, accept)
            let tag = try #require(whole.value("ETag"))
            let count = content.count
            for (field, range) in [
                ("bytes=0-9", 0..<10), ("Bytes=10-", 10..<count), ("bytes=-4", count - 4..<count),
                ("bytes=5-5\r\nIf-Range: \(tag)", 5..<6),
                ("bytes=0-1\r\nIf-Match: \(tag)\r\nIf-None-Match: \"x\"", 0..<2),
                ("bytes=0-1, 3-4", 0..<5),
            ] {
                let (answer, part) = try await get(fixture, name, accept + "Range: \(field)\r\n")
                #expect(answer.status == 206)
                #expect(part == Array(content[range]))
                #expect(
                    answer.values("Content-Range")
                        == ["bytes \(range.lowerBound)-\(range.upperBound - 1)/\(count)"])
                #expect(answer.value("Content-Length") == "\(range.count)")
                for name in [
                    "ETag", "Cache-Control", "Vary", "Content-Type", "Content-Encoding",
                    "Accept-Ranges", "X-Content-Type-Options",
                ] {
                    #expect(answer.values(name) == whole.values(name), "\(name)")
                }
            }
        }
        await fixture.stop()
    }

    @Test("several ranges are the parts of one content, each with its place")
    func multipart() async throws {
        let (fixture, catalog) = try serve()
        let name = try #require(catalog.names.first { $0.hasPrefix("js-lib.") })
        let (_, content) = try await get(fixture, name)
        let (answer, body) = try await get(fixture, name, "Range: bytes=500-509,-3, 0-0\r\n")
        #expect(answer.status == 206)
        #expect(answer.value("Content-Range") == nil)
        let type = try #require(answer.value("Content-Type"))
        #expect(type.hasPrefix("multipart/byteranges; boundary="))
        #expect(answer.value("Content-Length") == "\(body.count)")
        let parts = try parts(body, of: type)
        let count = content.count
        let ranges = [500..<510, count - 3..<count, 0..<1]
        #expect(
            parts.map(\.content) == ranges.map { String(decoding: content[$0], as: UTF8.self) })
        for (part, range) in zip(parts, ranges) {
            #expect(
                part.head == """
                    \r\nContent-Type: text/javascript; charset=utf-8\r\n\
                    Content-Range: bytes \(range.lowerBound)-\(range.upperBound - 1)/\(count)
                    """)
        }
        await fixture.stop()
    }

    @Test("what is no range, or no longer one of this file, is the whole file; what is past it 416")
    func otherRanges() async throws {
        let (fixture, catalog) = try serve()
        let name = try #require(catalog.names.first { $0.hasPrefix("js-lib.") })
        let (whole, content) = try await get(fixture, name)
        let tag = try #require(whole.value("ETag"))
        let (_, coded) = try await get(fixture, name, "Accept-Encoding: gzip\r\n")
        #expect(coded.count < content.count)
        for field in [
            "Range: bytes=9-5", "Range: lines=0-1", "Range: bytes=0-1\r\nRange: bytes=2-3",
            "Range: bytes=0-1\r\nIf-Range: \"x\"", "Range: bytes=0-1\r\nIf-Range: W/\(tag)",
            "Range: bytes=0-1\r\nIf-Range: Sat, 21 Nov 2026 00:00:00 GMT",
            "Range: bytes=0-1\r\nIf-Range: \(tag)\r\nIf-Range: \(tag)",
            // The tag of another form is the tag of other bytes.
            "Accept-Encoding: gzip\r\nRange: bytes=0-1\r\nIf-Range: \(tag)",
        ] {
            let (answer, all) = try await get(fixture, name, field + "\r\n")
            #expect(answer.status == 200, "\(field)")
            #expect(all == (field.hasPrefix("Accept") ? coded : content))
            #expect(answer.value("Content-Range") == nil)
        }
        for field in ["bytes=\(content.count)-", "bytes=-0", "bytes=99999999999999999999-"] {
            let (answer, _) = try await get(fixture, name, "Range: \(field)\r\n")
            #expect(answer.status == 416)
            #expect(answer.values("Content-Range") == ["bytes */\(content.count)"])
        }
        // Only GET has ranges (RFC 9110 14.2), and a client that holds the form is told so first (13.2.2).
        let (head, _) = try await get(fixture, name, "Range: bytes=0-1\r\n", method: "HEAD")
        #expect(head.status == 200)
        #expect(head.value("Content-Length") == "\(content.count)")
        let (held, _) = try await get(
            fixture, name, "Range: bytes=0-1\r\nIf-None-Match: \(tag)\r\n")
        #expect(held.status == 304)
        for field in ["\"x\"", "W/\(tag)", "x"] {
            let (stale, _) = try await get(
                fixture, name, "If-Match: \(field)\r\nRange: bytes=0-1\r\n")
            #expect(stale.status == 412)
        }
        #expect(try await get(fixture, name, "If-Match: *\r\n").0.status == 200)
        await fixture.stop()
    }

    @Test("documents are asked for each time, and have a policy of their own")
    func documents() async throws {
        let (fixture, _) = try serve()
        for name in ["", "about.html"] {
            let (answer, _) = try await get(fixture, name)
            #expect(answer.status == 200)
            #expect(answer.values("Cache-Control") == ["no-cache"])
            #expect(answer.value("Content-Type") == "text/html; charset=utf-8")
            let policy = answer.values("Content-Security-Policy")
            #expect(policy.count == 1)
            #expect(policy.first?.contains("script-src 'self'") == true)
            #expect(policy.first?.contains("unsafe") == false)
            #expect(policy.first?.contains("frame-ancestors 'none'") == true)
            #expect(answer.value("X-Frame-Options") == "DENY")
            let tag = try #require(answer.value("ETag"))
            #expect(try await get(fixture, name, "If-None-Match: \(tag)\r\n").0.status == 304)
        }
        await fixture.stop()
    }

    @Test(
        "only names of the manifest lead anywhere",
        arguments: [
            "app.js", "js-app.js", "js/app.js", "index.html", ".hidden", "..%2Findex.html",
            "%2e%2e%2fetc%2fpasswd", "style-main.0000000000000000.css", "%00", "about.html%00",
            "about.html/", "ABOUT.HTML",
        ])
    func nothingElse(name: String) async throws {
        let (fixture, _) = try serve()
        let (answer, _) = try await get(fixture, name)
        #expect(answer.status == 404 || answer.status == 400)
        #expect(answer.value("Cache-Control") == "no-store")
        await fixture.stop()
    }
}

@Suite("Ranges of bytes")
struct ByteRangeTests {
    @Test(
        "are what the field says",
        arguments: [
            ("bytes=0-0", [0..<1]), ("bytes=0-", [0..<1000]), ("bytes=999-", [999..<1000]),
            ("bytes=990-5000", [990..<1000]), ("bytes=-1", [999..<1000]),
            ("bytes=-1000", [0..<1000]), ("bytes=-1001", [0..<1000]),
            ("bytes=-99999999999999999999999", [0..<1000]),
            ("bytes=0-18446744073709551616", [0..<1000]), ("BYTES=1-2", [1..<3]),
            ("bytes= 1-2", [1..<3]), ("bytes=,1-2 ,, ", [1..<3]), ("bytes=00001-002", [1..<3]),
            ("bytes=500-501,0-1", [500..<502, 0..<2]), ("bytes=0-1,5000-", [0..<2]),
            ("bytes=0-1,-0", [0..<2]),
            // Those that touch, or nearly, are one, where the first of them stood.
            ("bytes=0-9,10-19", [0..<20]), ("bytes=10-19,0-9", [0..<20]),
            ("bytes=0-9,90-99", [0..<100]), ("bytes=0-9,91-99", [0..<10, 91..<100]),
            ("bytes=0-0,500-500,0-", [0..<1000]),
            ("bytes=500-500,0-0,900-900,400-900", [400..<901, 0..<1]),
            ("bytes=0-999,0-999,0-999", [0..<1000]),
            (
                "bytes=" + (0..<16).map { "\($0)-\($0)" }.joined(separator: ","), [0..<16]
            ),
        ])
    func parts(field: String, parts: [Range<Int>]) {
        #expect(ByteRanges.choose(field, of: 1000) == .parts(parts))
    }

    @Test(
        "that nobody can read are ignored",
        arguments: [
            "", "bytes", "bytes=", "bytes=,", "bytes= ", "bytes=-", "bytes=a-b", "bytes=1",
            "bytes=1-2-3", "bytes=2-1", "bytes=0-1,2-1", "bytes=0-1,x", "bytes =0-1",
            "bytes=0 - 1", "bytes=+0-1", "bytes=--1", "bytes=0-1;2-3", "bytes:0-1", "lines=0-1",
            "none", "bytes=0x0-1", "bytes=0-1,lines=2-3",
            "bytes=" + (0..<17).map { "\($0)-\($0)" }.joined(separator: ","),
        ])
    func ignored(field: String) {
        #expect(ByteRanges.choose(field, of: 1000) == .whole)
    }

    @Test("of nothing that is there are refused; of nothing at all there is only the whole")
    func unsatisfiable() {
        for field in ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=5000-,-0,1000-1000"] {
            #expect(ByteRanges.choose(field, of: 1000) == .unsatisfiable)
        }
        for field in ["bytes=0-", "bytes=-1", "bytes=5-"] {
            #expect(ByteRanges.choose(field, of: 0) == .whole)
        }
    }
}
