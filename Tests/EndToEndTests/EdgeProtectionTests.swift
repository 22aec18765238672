import HCCore
import HCCrypto
import HCHTTP
import HCIO
import HCTesting
import Testing

@testable import HCApp
@testable import HCClinic

extension EndToEnd {
    /// What protects the public listener, on the real programs.
    @Suite struct EdgeProtectionTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        private func page(_ platform: RunningPlatform) throws -> PrometheusText {
            try PrometheusText(
                try Subprocess.run(
                    "/usr/bin/curl", ["-sS", "http://127.0.0.1:\(platform.operatorPort)/metrics"]))
        }

        @Test(
            "what clients choose makes no series: hosts, paths, methods and agents by the hundred")
        func cardinality() throws {
            let token = try platform.login("sunrise")
            func ask(_ numbers: ClosedRange<Int>) throws {
                let range = "[\(numbers.lowerBound)-\(numbers.upperBound)]"
                for arguments in [
                    ["http://127.0.0.1:\(platform.port)/nothing/\(range)"],
                    [
                        "-H", "Host: nobody.example",
                        "http://127.0.0.1:\(platform.port)/v1/\(range)?q=\(range)",
                    ],
                    [
                        "-H", "Host: sunrise.localhost", "-H", "Authorization: Bearer \(token)",
                        "http://127.0.0.1:\(platform.port)/v1/patients/00000000-0000-7000-8000-0000000000\(range)",
                    ],
                ] {
                    try Subprocess.run(
                        "/usr/bin/curl",
                        ["-sS", "-o", "/dev/null", "-A", "agent \(numbers.lowerBound)"] + arguments)
                }
                for number in numbers.prefix(20) {
                    _ = try platform.curl("M\(number)", "sunrise", "/v1/patients")
                    _ = try platform.curl("GET", "host\(number)", "/v1/patients")
                }
            }
            try ask(10...11)
            let before = try page(platform)
            try ask(12...99)
            let after = try page(platform)
            let names = Set(after.values.keys.map(\.name)).subtracting(
                before.values.keys.map(\.name))
            #expect(names.isEmpty)
            let grown = Set(after.values.keys).subtracting(before.values.keys)
            // Other tests may run for the first time meanwhile; nothing that was sent here may be a label.
            for sample in grown {
                for value in sample.labels.values {
                    #expect(!value.contains("nobody") && !value.contains("host1"), "\(sample)")
                    #expect(!value.contains("M1") && !value.contains("agent"), "\(sample)")
                }
            }
            #expect(grown.count < 200, "\(grown.prefix(5))")
            #expect(after.sum("hc_http_responses_total", ["status": "501"]) >= 20)
        }

        @Test("the page of two workers and their supervisor is one that Prometheus reads")
        func wellFormed() throws {
            let page = try page(platform)
            for name in [
                "hc_http_connections_total", "hc_http_connections_open", "hc_http_requests_total",
                "hc_http_requests_shed_total", "hc_http_received_bytes_total",
                "hc_http_sent_bytes_total", "hc_http_refusals_total", "hc_loop_tick_seconds",
                "hc_http_request_seconds", "hc_http_requests_limit", "hc_http_queueing_seconds",
            ] {
                #expect(page.kinds[name] != nil, "\(name)")
            }
            let workers = page.values.keys.filter { $0.name == "hc_http_requests_limit" }
            #expect(Set(workers.compactMap { $0.labels["worker"] }) == ["0", "1"])
        }

        @Test("fields about other addresses mean nothing from somebody who is not trusted")
        func untrusted() throws {
            for fields in [
                ["Forwarded: for=1.1.1.1", "X-Forwarded-For: 2.2.2.2"],
                ["X-Forwarded-Host: lakeside.localhost"], ["Forwarded: for=\"broken"],
            ] {
                let answer = try platform.curl("GET", "sunrise", "/health", headers: fields)
                #expect(answer.status == 200)
            }
        }

        @Test("each route of the table has the lane of its class, and care has its own")
        func lanes() async throws {
            let routes = try await EdgeProtectionTests.table()
            func names(_ lane: RequestLane) -> Set<String> {
                Set(routes.filter { $0.lane == lane }.map(\.name))
            }
            #expect(
                names(.safety).isSuperset(of: [
                    "readPatient", "readAppointment", "check-inAppointment", "startAppointment",
                    "health",
                ]))
            #expect(names(.bulk).contains("searchPatients"))
            #expect(names(.entry).contains("login"))
            #expect(names(.interactive).isSuperset(of: ["refresh", "book", "listAppointments"]))
            for route in routes where route.method != .get && route.method != .post {
                #expect(route.lane != .bulk, "\(route.name): a change is not bulk")
            }
        }

        @LoopActor
        private static func table() throws -> [RouteDescription] {
            let tokens = try TokenKeyRing(keys: [
                (id: "table", key: try SecretBytes(randomCount: 32))
            ])
            let services = ClinicServices(
                ClinicDependencies(
                    clocks: .system, blockingPool: BlockingPool(),
                    secrets: try ClinicSecrets(tokens: tokens)))
            return Routes.all(services, clocks: .system).routes
        }
    }
}
