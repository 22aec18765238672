import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Tiers")
struct TierTests {
    private func parse(_ text: String) throws -> [TierDefinition] {
        try TierDefinition.parseFile(Array(text.utf8))
    }

    private func problems(_ text: String) -> [String] {
        do throws(TierFileError) {
            _ = try TierDefinition.parseFile(Array(text.utf8))
            return []
        } catch {
            return error.problems
        }
    }

    /// The problems of a file whose one tier has these members beside its name and a good rule.
    private func problems(with members: String) -> [String] {
        let rates = members.contains("\"rates\"") ? "" : "\(Self.rates), "
        return problems(#"{"tiers":[{"name":"a", \#(rates)\#(members)}]}"#)
    }

    private static let rates = """
        "rates":[{"name":"tenant","scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}]
        """

    @Test("a file of tiers is read, with defaults")
    func read() throws {
        let tiers = try parse(
            """
            {"tiers":[{"name":"basic",\(Self.rates)},
            {"name":"enterprise","weight":10,"rates":[
                {"name":"tenant","scope":"tenant","algorithm":"token-bucket","units":1000,"per":"1s","burst":20000},
                {"name":"login","scope":"address","classes":["otp","login"],"algorithm":"sliding-window",
                    "units":600,"per":"1m"}],
            "safetyReserve":10,
            "pool":{"inFlightMax":48,"waitingMax":99,"queueTimeout":"500ms","dedicatedConnections":3},
            "timeouts":{"statement":"5s","lock":"1s","transaction":"1m"},
            "cache":{"bytesMax":"8MiB","entriesMax":2000},"parkedRequestsMax":256}]}
            """)
        #expect(tiers[0] == TierDefinition(name: "basic", rates: [.bucket(units: 50, burst: 1000)]))
        #expect(
            tiers[1]
                == TierDefinition(
                    name: "enterprise", weight: 10,
                    rates: [
                        .bucket(units: 1000, burst: 20000),
                        RateRule(
                            name: "login", scope: .address, classes: [.login, .otp],
                            algorithm: .slidingWindow, units: 600, per: .seconds(60)),
                    ], safetyReservePercent: 10,
                    pool: TierPool(
                        inFlightMax: 48, waitingMax: 99, queueTimeout: .milliseconds(500),
                        dedicatedConnections: 3),
                    timeouts: TierTimeouts(
                        statement: .seconds(5), lock: .seconds(1), transaction: .seconds(60)),
                    cache: TierCache(bytesMax: 8 << 20, entriesMax: 2000), parkedRequestsMax: 256))
        #expect(try tiers.map { try TierDefinition(json: $0.json) } == tiers)
        #expect(!tiers[1].rates[1].covers(.export) && tiers[1].rates[1].covers(.otp))
    }

    @Test("the tiers of this repository are good, and written as they are kept")
    func shipped() throws {
        let text = try Repository.contents(of: Repository.path("tenants/tiers.json"))
        let tiers = try parse(text)
        #expect(tiers.map(\.name) == ["basic", "standard", "enterprise", "custom"])
        let file = try JSONReader.parse(Array(text.utf8))
        #expect(file["tiers"]?.asArray == tiers.map(\.json))
    }

    @Test("every problem of a file is told at once, with its place")
    func allProblems() {
        let found = problems(
            """
            {"tiers":[{"name":"Basic","weight":0,"colour":"red","rates":[
                {"name":"r","scope":"planet","algorithm":"leaky","units":0,"per":"1 fortnight","burst":499},
                {"name":"r","scope":"tenant","algorithm":"token-bucket","units":1,"per":"1s","burst":499,"x":1}],
                "pool":{"inFlightMax":-1},"timeouts":{"lock":"8MiB"},"cache":{"bytesMax":4}},
            {"name":"a"},{"name":"a","rates":[]}],
            "more":1}
            """)
        for place in [
            "more:", "tiers[0].name:", "tiers[0].weight:", "tiers[0].colour:",
            "tiers[0].rates[0].scope:", "tiers[0].rates[0].algorithm:",
            "tiers[0].rates[0].units:", "tiers[0].rates[0].per:", "tiers[0].rates[1].x:",
            "tiers[0].rates: 'r' is there twice", "tiers[0].pool.inFlightMax:",
            "tiers[0].timeouts.lock:", "tiers[0].cache.bytesMax:", "tiers[1].rates:",
            "tiers[2].name: 'a' is there twice", "tiers[2].rates:",
        ] {
            #expect(found.contains { $0.hasPrefix(place) }, "\(place)\n\(found)")
        }
        #expect(found.count == 16, "\(found)")
    }

    @Test("so many tiers are enough")
    func countMax() {
        func file(_ count: Int) -> String {
            let tiers = (0..<count).map { number in
                #"{"name":"t\#(number)","rates":[{"name":"r","scope":"tenant","#
                    + #""algorithm":"token-bucket","units":1,"per":"1s","burst":500}]}"#
            }
            return #"{"tiers":[\#(tiers.joined(separator: ","))]}"#
        }
        #expect(problems(file(TierDefinition.countMax)) == [])
        #expect(problems(file(TierDefinition.countMax + 1)) == ["tiers: lists 101, more than 100"])
    }

    @Test(
        "a limit of zero, a negative, an absurd one and one in the wrong unit are refused",
        arguments: [
            (#""weight":0"#, "weight"), (#""weight":1001"#, "weight"),
            (#""weight":1.5"#, "weight"), (#""weight":"1""#, "weight"),
            (#""safetyReserve":-1"#, "safetyReserve"), (#""safetyReserve":91"#, "safetyReserve"),
            (#""parkedRequestsMax":0"#, "parkedRequestsMax"),
            (#""parkedRequestsMax":10001"#, "parkedRequestsMax"),
            (#""pool":{"inFlightMax":0}"#, "pool.inFlightMax"),
            (#""pool":{"inFlightMax":1001}"#, "pool.inFlightMax"),
            (#""pool":{"waitingMax":0}"#, "pool.waitingMax"),
            (#""pool":{"queueTimeout":2}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"2"}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"2 s"}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"31s"}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"0s"}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"-2s"}"#, "pool.queueTimeout"),
            (#""pool":{"queueTimeout":"99999999999999999d"}"#, "pool.queueTimeout"),
            (#""pool":{"dedicatedConnections":-1}"#, "pool.dedicatedConnections"),
            (#""pool":{"inFlightMax":2,"dedicatedConnections":3}"#, "pool.dedicatedConnections"),
            (#""pool":{"max":3}"#, "pool.max"), (#""pool":7"#, "pool"),
            (#""timeouts":{"statement":"11m"}"#, "timeouts.statement"),
            (#""timeouts":{"statement":"1s","lock":"2s"}"#, "timeouts.lock"),
            (#""timeouts":{"statement":"3s","transaction":"2s"}"#, "timeouts.statement"),
            (#""cache":{"bytesMax":"1MB"}"#, "cache.bytesMax"),
            (#""cache":{"bytesMax":"1048576"}"#, "cache.bytesMax"),
            (#""cache":{"bytesMax":"2GiB"}"#, "cache.bytesMax"),
            (#""cache":{"bytesMax":"10s"}"#, "cache.bytesMax"),
            (#""cache":{"entriesMax":0}"#, "cache.entriesMax"),
            (#""name2":"b""#, "name2"), (#""unitsPerSecond":10"#, "unitsPerSecond"),
        ])
    func bounds(members: String, place: String) {
        let found = problems(with: members)
        #expect(
            found.count == 1 && found[0].hasPrefix("tiers[0].\(place): "),
            "\(members): \(found)")
    }

    @Test(
        "a rule that cannot be meant is refused",
        arguments: [
            (#""units":0"#, "units"), (#""units":-5"#, "units"), (#""units":1000001"#, "units"),
            (#""units":1e3"#, "units"), (#""units":null"#, "units"),
            (#""per":"1""#, "per"), (#""per":60"#, "per"), (#""per":"500ms""#, "per"),
            (#""per":"2h""#, "per"), (#""per":"1w""#, "per"),
            (#""burst":0"#, "burst"), (#""burst":1000001"#, "burst"),
            (#""burst":499"#, "burst"), (#""burst":"2s""#, "burst"),
            (#""scope":"clinic""#, "scope"), (#""algorithm":"gcra""#, "algorithm"),
            (#""classes":[]"#, "classes"), (#""classes":"login""#, "classes"),
            (#""classes":["xray"]"#, "classes[0]"),
            (#""classes":["export","login","export"]"#, "classes[2]"),
            (#""name":"A b""#, "name"), (#""limit":3"#, "limit"),
        ])
    func rules(member: String, place: String) throws {
        var rule = try #require(
            JSONReader.parse(
                Array(
                    #"{"name":"x","scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}"#
                        .utf8)
            ).asObject)
        for (name, value) in try JSONReader.parse(Array("{\(member)}".utf8)).asObject?.members.map({
            ($0.name, $0.value)
        }) ?? [] {
            rule.set(value, for: name)
        }
        let good =
            #"{"name":"all","scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}"#
        let found = problems(with: #""rates":[\#(good),\#(JSONValue.object(rule).text)]"#)
        #expect(
            found.count == 1 && found[0].hasPrefix("tiers[0].rates[1].\(place): "),
            "\(member): \(found)")
    }

    @Test("a burst below one export is refused, with what the safety lane keeps taken off it")
    func exports() {
        func rule(_ burst: Int, _ scope: String = "tenant", _ classes: String = "") -> String {
            let all =
                #"{"name":"all","scope":"tenant","algorithm":"token-bucket","units":1,"per":"1s","burst":1000}"#
            return
                #""rates":[\#(all),{"name":"x","scope":"\#(scope)",\#(classes)"algorithm":"token-bucket","units":1,"per":"1s","burst":\#(burst)}]"#
        }
        expectEqual(problems(with: rule(500)), [])
        expectEqual(problems(with: rule(499)).count, 1)
        expectEqual(problems(with: #""safetyReserve":50,"# + rule(999)).count, 1)
        expectEqual(problems(with: #""safetyReserve":50,"# + rule(1000)), [])
        // The reserve is of the clinic's rules, not of one user's.
        expectEqual(problems(with: #""safetyReserve":50,"# + rule(500, "user")), [])
        // A rule that counts no exports needs no room for one.
        expectEqual(problems(with: rule(20, "tenant", #""classes":["login"],"#)), [])
        expectEqual(problems(with: rule(19, "tenant", #""classes":["login"],"#)).count, 1)
        expectEqual(problems(with: rule(9, "tenant", #""classes":["search"],"#)).count, 1)
    }

    @Test("windows have no burst, and must have room for one request")
    func windows() {
        func rule(_ rest: String) -> [String] {
            let all =
                #"{"name":"all","scope":"tenant","algorithm":"token-bucket","units":1,"per":"1s","burst":500}"#
            return problems(
                with:
                    #""rates":[\#(all),{"name":"x","scope":"user","classes":["login"],"algorithm":\#(rest)}]"#
            )
        }
        expectEqual(rule(#""sliding-window","units":100,"per":"1d""#), [])
        expectEqual(rule(#""fixed-window","units":1000000000,"per":"1h""#), [])
        expectEqual(rule(#""fixed-window","units":1000000001,"per":"1h""#).count, 1)
        expectEqual(rule(#""fixed-window","units":19,"per":"1m""#).count, 1)
        expectEqual(rule(#""fixed-window","units":100,"per":"25h""#).count, 1)
        let found = rule(#""sliding-window","units":100,"per":"1m","burst":5"#)
        #expect(found.count == 1 && found[0].hasPrefix("tiers[0].rates[1].burst: "))
    }

    @Test(
        "a tier in which a clinic could do something without limit is refused, by name of the class"
    )
    func unlimited() {
        let found = problems(
            with: """
                "rates":[{"name":"u","scope":"user","algorithm":"token-bucket","units":1,"per":"1s","burst":500},
                {"name":"x","scope":"tenant","classes":["login","otp","booking","search","default"],
                    "algorithm":"sliding-window","units":100,"per":"1m"}]
                """)
        #expect(found == ["tiers[0].rates: no rule of scope tenant limits export, upload"])
    }

    @Test(
        "what is no file of tiers is said to be none",
        arguments: ["", "[]", "{}", #"{"tiers":{}}"#, #"{"tiers":[]}"#, #"{"tiers":[3]}"#])
    func nonsense(text: String) {
        #expect(throws: TierFileError.self) { try parse(text) }
    }

    @Test("definitions from before rules are still read, from the database only")
    func flat() throws {
        let text =
            #"{"name":"basic","weight":4,"unitsPerSecond":200,"burstUnits":2000,"transactionsMax":8,"parkedRequestsMax":65}"#
        let tier = try TierDefinition(json: JSONReader.parse(Array(text.utf8)))
        #expect(
            tier
                == TierDefinition(
                    name: "basic", weight: 4, rates: [.bucket(units: 200, burst: 2000)],
                    pool: TierPool(inFlightMax: 8), parkedRequestsMax: 65))
        #expect(try TierDefinition(json: tier.json) == tier)
        #expect(throws: TierFileError.self) { try parse(#"{"tiers":[\#(text)]}"#) }
        for (good, broken) in [
            ("\"unitsPerSecond\":200", "\"unitsPerSecond\":0"),
            ("\"burstUnits\":2000", "\"burstUnits\":499"),
            ("\"transactionsMax\":8", "\"transactionsMax\":0"),
        ] {
            let changed = text.replacing(good, with: broken)
            #expect(throws: TierFileError.self, "\(changed)") {
                try TierDefinition(json: JSONReader.parse(Array(changed.utf8)))
            }
        }
    }

    @Test("a stored definition of a newer program is read without what is not known of it")
    func newer() throws {
        let tier = TierDefinition(name: "a", rates: [.bucket(units: 50, burst: 1000)])
        let newer = #"{"name":"a","colour":"red","pool":{"shape":1},\#(Self.rates)}"#
        #expect(try TierDefinition(json: JSONReader.parse(Array(newer.utf8))) == tier)
        #expect(throws: TierFileError.self) { try parse(#"{"tiers":[\#(newer)]}"#) }
    }

    @Test("the least tier is good itself")
    func least() throws {
        let tier = TierDefinition.least("gone")
        #expect(try TierDefinition(json: tier.json) == tier)
    }
}
