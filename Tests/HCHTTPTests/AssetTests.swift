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
    private func serve(_ files: [String: String] = site) throws -> (ServerFixture, AssetCatalog) {
        let folder = try AssetFolder(files)
        let catalog = try AssetCatalog(directory: folder.path, mount: "/console/")
        var router = Router<String>()
        for pattern in ["/console/", "/console/{asset}"] {
            router.add(RouteDescription(.get, pattern, name: pattern, access: .open)) {
                request, _ in
                try catalog.response(to: request, name: request.target.segments.last ?? "")
            }
        }
        let application = Application(
            router, middleware: [], makeContext: { _, _ in "" },
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
        let answer = try #require(RawAnswer.parse(client.received, heads: [0]).first)
        let end = try #require(
            client.received.indices.dropLast(3).first {
                client.received[$0..<$0 + 4].elementsEqual([13, 10, 13, 10])
            })
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
            #expect(answer.value("Accept-Ranges") == "none")
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
        let (ranged, whole) = try await get(fixture, name, "Range: bytes=0-1\r\n")
        #expect(ranged.status == 200)
        #expect(whole.count > 2)
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
