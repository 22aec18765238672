import HCTesting
import Testing

@Suite("The house is tidy")
struct HouseTests {
    private static func check(
        _ files: [SourceTree.File], _ rule: (SourceTree.File) -> [HouseRules.Violation]
    ) {
        #expect(!files.isEmpty)
        for file in files {
            for violation in rule(file) { Issue.record("\(file.path) \(violation)") }
        }
    }

    private static func sources() throws -> [SourceTree.File] {
        try SourceTree.files(under: "Sources", ending: ".swift")
    }

    private static func tests() throws -> [SourceTree.File] {
        try SourceTree.files(under: "Tests", ending: ".swift")
    }

    @Test("nothing is public or open")
    func access() throws {
        Self.check(try Self.sources()) { HouseRules.publicDeclarations($0.text) }
    }

    @Test("tasks start on the loop, and nothing sleeps")
    func concurrency() throws {
        let rooms = try Self.sources().filter { $0.room != "HCTesting" }
        Self.check(rooms) { file in
            HouseRules.strayConcurrency(
                file.text, isLoop: file.path.hasPrefix("Sources/HCIO/Loop/"))
        }
    }

    @Test("tasks of tests run as those of the programs do")
    func homes() throws {
        Self.check(try Self.tests()) { HouseRules.homelessTasks($0.text) }
    }

    @Test("nobody but the transport reads what proxies say of clients")
    func forwarding() throws {
        let rooms = try Self.sources().filter { $0.room != "HCHTTP" }
        Self.check(rooms) { HouseRules.forwardingFields($0.text) }
    }

    @Test("no write fails in silence")
    func writes() throws {
        Self.check(try Self.sources()) { HouseRules.swallowedWrites($0.text) }
    }

    @Test("what the compiler cannot check is proved in a comment")
    func promises() throws {
        Self.check(try Self.sources() + Self.tests()) { HouseRules.unprovedPromises($0.text) }
    }

    @Test("no file promises work for later")
    func openWork() throws {
        let text = [".swift", ".sql", ".sh", ".h", ".json", ".md", ".modulemap"]
        for directory in ["Sources", "Tests", "migrations", "deploy", "admin", "tenants"] {
            for path in try SourceTree.allPaths() where path.hasPrefix("\(directory)/") {
                let name = path.split(separator: "/").last ?? ""
                // Scripts have no ending: `deploy/local/up`.
                guard text.contains(where: { path.hasSuffix($0) }) || !name.contains(".") else {
                    continue
                }
                let contents = try Repository.contents(of: Repository.path(path))
                for violation in HouseRules.openWork(contents) {
                    Issue.record("\(path) \(violation)")
                }
            }
        }
    }

    @Test("tests neither sleep nor are skipped")
    func waiting() throws {
        Self.check(try Self.tests()) { HouseRules.sleepingTests($0.text) }
    }

    @Test("imports go down, doors open for their rooms only")
    func floors() throws {
        for file in try Self.sources() {
            for (module, line) in SwiftTokens(file.text).imports {
                if let refusal = Floors.refusal(of: module, in: file.room) {
                    Issue.record("\(file.path) line \(line): \(refusal)")
                }
            }
        }
    }

    @Test("the package depends on no package, and doors have no code of their own")
    func dependencies() throws {
        let manifest = SwiftTokens(try Repository.contents(of: Repository.path("Package.swift")))
        let calls = manifest.positions(of: "package").filter { manifest[$0 - 1] == "." }
        #expect(calls.isEmpty, "Package.swift names a package")
        for file in try Self.sources() {
            #expect(Floors.doors[file.room] == nil, "\(file.path) is code in a door")
        }
        let names = Set(
            try SourceTree.allPaths().filter { $0.hasPrefix("Sources/") && $0.contains("/") }
                .compactMap { $0.split(separator: "/").dropFirst().first }.map(String.init))
        for name in names where name != "README.md" {
            #expect(
                Floors.rooms[name] != nil || Floors.doors[name] != nil,
                "Sources/\(name) is no room, no door and no program")
        }
    }

    @Test("the top of the repository has nothing else")
    func topLevel() throws {
        let allowed: Set = [
            "Package.swift", "Sources", "Tests", "tenants", "migrations", "admin", "deploy",
            "README.md",
        ]
        let names = Set(
            try SourceTree.allPaths().compactMap { $0.split(separator: "/").first }.map(String.init)
        )
        for name in names where !name.hasPrefix(".") {
            #expect(allowed.contains(name), "\(name) has no place at the top")
        }
    }
}
