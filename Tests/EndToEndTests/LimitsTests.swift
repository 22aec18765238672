import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// What a client is told of its clinic's limits. On a platform of its own, whose tiers it changes; of one worker, so that
    /// what is told counts every request before.
    @Suite struct LimitsTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared("limits", ["HC_WORKERS": "1"])
        }

        /// A clinic whose accounts may ask 360 units an hour: in the time of a test few of them come back.
        private func login() throws -> String {
            let metered = try JSONReader.parse(
                """
                {"name":"metered","rates":[
                    {"name":"clinic","scope":"tenant","algorithm":"token-bucket",
                        "units":1000,"per":"1s","burst":10000},
                    {"name":"reading","scope":"user","classes":["default"],
                        "algorithm":"sliding-window","units":360,"per":"1h"}]}
                """)
            let file = try JSONReader.parse(
                Array(Repository.contents(of: Repository.path("tenants/tiers.json")).utf8))
            var tiers = JSONObject()
            tiers.set(.array((file["tiers"]?.asArray ?? []) + [metered]), for: "tiers")
            let path = platform.directory + "/tiers.json"
            try Files.replace(path, with: Array(JSONValue.object(tiers).text.utf8))
            defer { unlink(path) }
            let applied = try platform.admin(
                ["tier", "apply", "--file", path, "--reason", "test", "--yes"])
            #expect(applied.status == 0, "\(applied.output)")
            let made = try platform.admin(
                ["tenant", "create", "metered", "--name", "Metered", "--tier", "metered", "--json"])
            #expect(made.status == 0, "\(made.output)")
            let owner = try JSONReader.parse(Array(made.output.utf8))
            var login = JSONObject()
            login.set(owner["ownerEmail"] ?? .null, for: "email")
            login.set(owner["ownerPassword"] ?? .null, for: "password")
            let answer = try platform.curl(
                "POST", "metered", "/v1/auth/login", json: JSONValue.object(login).text)
            #expect(answer.status == 200, "\(answer.body)")
            return try #require(try answer.json["accessToken"]?.asString)
        }

        @Test(
            "who asks for the limits is told the tier, its rules and what is left, and asking counts"
        )
        func report() throws {
            let token = try login()
            func ask() throws -> CurlAnswer {
                let answer = try platform.curl("GET", "metered", "/v1/limits", token: token)
                #expect(answer.status == 200, "\(answer.body)")
                return answer
            }
            func left(_ answer: CurlAnswer) throws -> Int64 {
                let rules = try #require(try answer.json["rules"]?.asArray)
                return try #require(
                    rules.first { $0["name"] == "reading" }?["remaining"]?.asInteger)
            }
            let first = try ask()
            #expect(first.header("Content-Type") == "application/json")
            #expect(try first.json["tier"] == "metered")
            #expect(try first.json["source"] == "shared")
            let rules = try #require(try first.json["rules"]?.asArray)
            #expect(rules.map { $0["name"]?.asString } == ["clinic", "reading"])
            #expect(rules.map { $0["scope"]?.asString } == ["tenant", "user"])
            #expect(
                rules.map { $0["algorithm"]?.asString } == ["token-bucket", "sliding-window"])
            #expect(rules.map { $0["units"]?.asInteger } == [1000, 360])
            #expect(rules.map { $0["per"]?.asString } == ["1s", "1h"])
            #expect(rules.map { $0["capacity"]?.asInteger } == [10000, 360])
            #expect(rules[1]["classes"] == ["default"])
            let costs = try #require(try first.json["costs"])
            #expect(costs["read"] == 1 && costs["search"] == 10 && costs["write"] == 20)
            #expect(costs["platform"] == nil)

            // Both rules speak of the request, and of the second less is left.
            #expect(
                first.header("RateLimit-Policy")
                    == #""clinic";q=10000;w=10, "reading";q=360;w=3600"#)
            for _ in 0..<8 {
                let answer = try ask()
                let field = try #require(answer.header("RateLimit"))
                #expect(field.hasPrefix("\"reading\";r=\(try left(answer));t="), "\(field)")
            }
            // One unit each; in ten seconds at most one comes back.
            let used = try left(first) - left(try ask())
            #expect((5...9).contains(used), "\(used)")

            // It is told to nobody else.
            let stranger = try platform.curl("GET", "metered", "/v1/limits")
            #expect(stranger.status == 401 && !stranger.body.contains("reading"))
        }
    }
}
