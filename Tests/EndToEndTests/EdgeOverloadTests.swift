import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// A real server with more to do than it takes on, and one behind a proxy.
    @Suite struct EdgeOverloadTests {
        @Test(
            "a full worker sheds what can wait, says when to come again, and serves care meanwhile")
        func shedding() throws {
            let platform = try RunningPlatform.shared("overload", ["HC_WORKERS": "1"])
            // Half of this for what can wait, a fifth that only care may take.
            let inFlightMax = 10
            try platform.configure(
                "http", ["requestsInFlightMax": .integer(Int64(inFlightMax)), "queueTarget": "10s"])
            try platform.reload()
            let token = try platform.login("sunrise")
            let patients = try platform.curl(
                "GET", "sunrise", "/v1/patients?limit=1", token: token)
            let patient = try #require(
                try patients.json["items"]?.asArray?.first?["id"]?.asString)
            let before = try page(platform)
            let rounds = 5
            let output = try Subprocess.run(
                "/usr/bin/python3",
                [
                    Repository.path("Tests/EndToEndTests/Clients/overload.py"),
                    String(platform.port), token, patient, String(rounds), String(inFlightMax),
                ])
            let result = try JSONReader.parse(Array(output.utf8))
            let served = result["served"]?.asInteger ?? 0
            let shed = result["shed"]?.asInteger ?? 0
            #expect(served + shed == Int64(rounds * 60), "\(output)")
            #expect(result["other"] == [] && result["withoutRetryAfter"] == 0, "\(output)")
            // Of the sixty that come at once five are let in, and no more until one of them is through.
            #expect(shed >= Int64(rounds * 20), "\(output)")
            #expect(served >= Int64(rounds * inFlightMax / 2), "\(output)")
            #expect(
                result["care"]?.asArray == [JSONValue](repeating: "200", count: rounds * 3),
                "\(output)")
            // Whatever was offered: in front of care there were at most those that had been let in.
            #expect(result["longestQueue"]?.asInteger ?? 99 <= Int64(inFlightMax / 2), "\(output)")
            let after = try page(platform)
            func grown(_ lane: String) -> Double {
                after.sum("hc_http_requests_shed_total", ["lane": lane])
                    - before.sum("hc_http_requests_shed_total", ["lane": lane])
            }
            #expect(grown("bulk") == Double(shed))
            for lane in ["entry", "interactive", "safety"] { #expect(grown(lane) == 0, "\(lane)") }
            #expect(after.sum("hc_http_requests_in_flight", [:]) == 0)
        }

        @Test("what comes without a login is counted for its address, not for the clinic alone")
        func strangers() throws {
            let platform = try RunningPlatform.shared("overload", ["HC_WORKERS": "1"])
            // A clinic that lets an address knock forty times an hour, and what one login costs in the first hour of a Redis.
            let narrow = try JSONReader.parse(
                """
                {"name":"narrow","rates":[
                    {"name":"tenant","scope":"tenant","algorithm":"token-bucket",
                        "units":1000,"per":"1s","burst":10000},
                    {"name":"strangers","scope":"address","classes":["login","otp"],
                        "algorithm":"sliding-window","units":40,"per":"1h"}]}
                """)
            let file = try JSONReader.parse(
                Array(Repository.contents(of: Repository.path("tenants/tiers.json")).utf8))
            var tiers = JSONObject()
            tiers.set(.array((file["tiers"]?.asArray ?? []) + [narrow]), for: "tiers")
            let path = platform.directory + "/tiers.json"
            try Files.replace(path, with: Array(JSONValue.object(tiers).text.utf8))
            defer { unlink(path) }
            for arguments in [
                ["tier", "apply", "--file", path, "--reason", "test", "--yes"],
                ["tenant", "create", "narrow", "--name", "Narrow", "--tier", "narrow", "--json"],
            ] {
                let done = try platform.admin(arguments)
                #expect(done.status == 0, "\(done.output)")
            }
            // No WebSocket, no ticket: as cheap for who asks as anything can be.
            for _ in 0..<10 {
                let answer = try platform.curl("GET", "narrow", "/v1/events/ws")
                #expect(answer.status == 426, "\(answer.body)")
            }
            let foreign = try platform.login("sunrise")
            let answers = try (0..<40).map { _ in
                try platform.curl("GET", "narrow", "/v1/auth/me", token: foreign)
            }
            let told = answers.map(\.status)
            #expect(told.prefix(5).allSatisfy { $0 == 404 }, "\(told)")
            let refused = try #require(answers.last)
            #expect(refused.status == 429)
            #expect(try refused.json["rule"] == "strangers")
            #expect(refused.header("Retry-After") != nil)
            #expect(try platform.curl("GET", "narrow", "/v1/events/ws").status == 429)
            // Nothing is done for them: they are told so in any case.
            #expect(try platform.curl("GET", "narrow", "/v1/auth/me").status == 401)
        }

        @Test(
            "behind a proxy the address is the client's: in the log, in the limits, by both doors")
        func proxyProtocol() throws {
            let platform = try RunningPlatform.shared("proxied", ["HC_WORKERS": "1"])
            let perAddress = 3
            try platform.configure(
                "http",
                [
                    "trustedProxies": ["127.0.0.2"], "proxyProtocol": ["plain", "tls"],
                    "connectionsPerAddressMax": .integer(Int64(perAddress)),
                ])
            try platform.reload()
            let before = try page(platform)
            let output = try Subprocess.run(
                "/usr/bin/python3",
                [
                    Repository.path("Tests/EndToEndTests/Clients/proxy.py"),
                    String(platform.port), String(platform.tlsPort), String(perAddress),
                ])
            #expect(output == "done\n")
            let clients = try clients(in: try platform.log())
            for door in ["plain", "tls"] {
                #expect(clients["proxy-\(door)-ipv4"] == ["198.51.100.7"])
                #expect(clients["proxy-\(door)-ipv6"] == ["2001:db8:1::7"])
                #expect(clients["proxy-\(door)-mapped"] == ["198.51.100.9"])
                #expect(clients["proxy-\(door)-tlvs"] == ["198.51.100.8"])
                // It speaks for itself.
                #expect(clients["proxy-\(door)-local"] == ["127.0.0.2"])
            }
            for name in ["proxy-untrusted", "proxy-broken", "proxy-too-many"] {
                #expect(clients[name] == nil, "\(name)")
            }
            let after = try page(platform)
            func grown(_ reason: String) -> Double {
                after.sum("hc_http_connections_refused_total", ["reason": reason])
                    - before.sum("hc_http_connections_refused_total", ["reason": reason])
            }
            #expect(grown("not-proxy") == 4)
            #expect(grown("proxy-header") == 12)
            #expect(grown("address") == 1)
        }

        private func page(_ platform: RunningPlatform) throws -> PrometheusText {
            try PrometheusText(try platform.metrics())
        }

        /// By request id: the addresses that the access log names.
        private func clients(in log: String) throws -> [String: Set<String>] {
            var found: [String: Set<String>] = [:]
            for line in log.split(separator: "\n") where line.contains("\"proxy-") {
                let entry = try JSONReader.parse(Array(line.utf8))
                guard let id = entry["requestId"]?.asString, let client = entry["client"]?.asString
                else { continue }
                found[id, default: []].insert(client)
            }
            return found
        }
    }
}
