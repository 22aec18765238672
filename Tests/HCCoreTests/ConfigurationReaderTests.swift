import HCCore
import Testing

@Suite("Configuration")
struct ConfigurationReaderTests {
    private enum Profile: String, CaseIterable {
        case local, production
    }

    private static func reader(
        _ text: String, environment: [String: String] = [:],
        overrides: [(variable: String, path: String)] = []
    ) throws -> ConfigurationReader {
        try ConfigurationReader.parse(
            Array(text.utf8), source: "hc.json", environment: environment, overrides: overrides)
    }

    private static func problems(_ reader: ConfigurationReader) -> [String] {
        do {
            try reader.finish()
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    @Test("values of every type are read, and absent ones have their defaults")
    func values() throws {
        let reader = try Self.reader(
            """
            {"profile": "production", "name": "x", "port": 8080, "ratio": 0.5, "on": true,
             "wait": "250ms", "body": "50MiB", "head": 100, "hosts": ["a", "b"], "off": null,
             "server": {"port": 1}, "pools": [{"size": 2}, {"size": 3}],
             "tiers": {"basic": {"rate": 1}, "gold": {"rate": 9}}, "extra": {"any": ["thing"]}}
            """)
        #expect(reader.choice("profile") == Profile.production)
        #expect(reader.string("name") == "x")
        #expect(reader.integer("port", in: 1...65_535) == 8080)
        #expect(reader.number("ratio", in: 0...1) == 0.5)
        #expect(reader.bool("on"))
        #expect(reader.bool("off", default: true))
        #expect(reader.duration("wait", in: .zero ... .seconds(60)) == .milliseconds(250))
        #expect(reader.byteCount("body", in: 1...1 << 30) == 50 << 20)
        #expect(reader.byteCount("head", in: 1...1 << 30) == 100)
        #expect(reader.strings("hosts") == ["a", "b"])
        #expect(reader.optionalString("nothing") == nil)
        #expect(reader.string("nothing", default: "d") == "d")
        #expect(reader.strings("none", default: []) == [])
        #expect(reader.section("server").integer("port", in: 1...9) == 1)
        #expect(reader.section("absent").integer("port", in: 1...9, default: 7) == 7)
        #expect(reader.optionalSection("absent") == nil)
        #expect(reader.sections("pools").map { $0.integer("size", in: 1...9) } == [2, 3])
        #expect(
            reader.namedSections("tiers").map { "\($0)\($1.integer("rate", in: 1...9))" }
                == ["basic1", "gold9"])
        #expect(reader.json("extra") == ["any": ["thing"]])
        #expect(Self.problems(reader) == [])
    }

    @Test("every problem is listed at once, each with its path and what to do")
    func allProblems() throws {
        let reader = try Self.reader(
            """
            {"profile": "staging", "name": "", "port": 0, "wait": 30, "long": "2w", "body": "5MB",
             "hosts": ["a", 1], "server": 5, "pools": [{"size": "x"}, 3], "on": "yes",
             "prot": 1, "tls": {"cert": "a", "kee": "b"}}
            """)
        _ = reader.choice("profile") as Profile
        _ = reader.string("name", default: "fine")
        _ = reader.string("id")
        _ = reader.integer("port", in: 1...65_535)
        _ = reader.duration("wait", in: .seconds(1) ... .seconds(3600))
        _ = reader.duration("long", in: .milliseconds(1) ... .seconds(86_400))
        _ = reader.byteCount("body", in: 1...100)
        _ = reader.strings("hosts")
        _ = reader.section("server").integer("port", in: 1...9, default: 1)
        _ = reader.sections("pools").map { $0.integer("size", in: 1...9) }
        _ = reader.bool("on")
        let tls = reader.section("tls")
        _ = tls.string("cert")
        _ = tls.optionalString("key")
        tls.report("cert", "is no file", "give the path of a PEM file")
        #expect(
            Self.problems(reader) == [
                #"profile: is "staging": write one of: local, production"#,
                #"name: is "": write a text that is not empty"#,
                "id: is missing: write a text",
                "port: is 0: write an integer from 1 to 65535",
                "wait: is 30: write a duration such as 250ms, 30s, 5m, 2h or 7d, from 1s to 1h",
                #"long: is "2w": write a duration such as 250ms, 30s, 5m, 2h or 7d, from 1ms to 1d"#,
                #"body: is "5MB": write a size such as 8KiB, 50MiB or 1GiB, from 1 to 100 bytes"#,
                "hosts: is an array: write an array of texts",
                "server: is an integer: write an object: { … }",
                "pools[1]: is an integer: write an object: { … }",
                #"pools[0].size: is "x": write an integer from 1 to 9"#,
                #"on: is "yes": write true or false"#,
                "tls.cert: is no file: give the path of a PEM file",
                "prot: unknown key: remove it or use one of: body, hosts, id, long, name, on, "
                    + "pools, port, profile, server, tls, wait",
                "tls.kee: unknown key: remove it or use one of: cert, key",
            ])
    }

    @Test("the environment wins over the file, also where the file says nothing")
    func overrides() throws {
        let reader = try Self.reader(
            #"{"server": {"port": 1}, "hosts": ["x"]}"#,
            environment: [
                "HC_PORT": "8081", "HC_WORKERS": "many", "HC_HOSTS": "a,b", "HC_TLS": "0",
                "HC_WAIT": "5m", "HC_EMPTY": "", "HC_NAME": "n", "HC_RATIO": "0.25",
                "HC_PROFILE": "local", "HC_ODD": "maybe", "HC_RAW": "r",
            ],
            overrides: [
                ("HC_PORT", "server.port"), ("HC_WORKERS", "server.workers"), ("HC_HOSTS", "hosts"),
                ("HC_TLS", "server.tls.on"), ("HC_WAIT", "wait"), ("HC_EMPTY", "empty"),
                ("HC_NAME", "name"), ("HC_RATIO", "ratio"), ("HC_PROFILE", "profile"),
                ("HC_ODD", "odd"), ("HC_ABSENT", "absent"), ("HC_RAW", "raw"),
            ])
        let server = reader.section("server")
        #expect(server.integer("port", in: 1...65_535) == 8081)
        #expect(server.integer("workers", in: 1...64, default: 2) == 2)
        #expect(!server.section("tls").bool("on", default: true))
        #expect(reader.strings("hosts") == ["a", "b"])
        #expect(reader.duration("wait", in: .zero ... .seconds(600)) == .seconds(300))
        #expect(reader.optionalString("empty") == nil)
        #expect(reader.string("name") == "n")
        #expect(reader.number("ratio", in: 0...1) == 0.25)
        #expect(reader.choice("profile", default: Profile.production) == .local)
        #expect(!reader.bool("odd", default: false))
        #expect(reader.string("absent", default: "d") == "d")
        #expect(reader.json("raw") == "r")
        #expect(
            Self.problems(reader) == [
                #"HC_WORKERS: is "many": write an integer from 1 to 64"#,
                #"HC_ODD: is "maybe": write true or false"#,
            ])
    }

    @Test("a text that is no JSON is refused with line and column")
    func syntax() {
        #expect(
            throws: ConfigurationError(
                source: "hc.json",
                problems: [
                    ConfigurationProblem(
                        path: "line 3, column 3",
                        problem: "a value, name or punctuation mark was expected",
                        remedy: "correct the JSON")
                ])
        ) {
            try Self.reader("{\n  \"a\": 1,\n  b: 2\n}")
        }
    }

    @Test("a configuration that is no object says so, and the error lists its file")
    func noObject() throws {
        let reader = try Self.reader("[1]")
        #expect(throws: ConfigurationError.self) { try reader.finish() }
        do {
            try reader.finish()
        } catch {
            #expect(
                error.description
                    == "hc.json cannot be used:\n  the configuration: is an array: write an object: { … }"
            )
        }
    }
}
