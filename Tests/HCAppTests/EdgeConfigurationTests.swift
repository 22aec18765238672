import HCCore
import HCHTTP
import HCTesting
import Testing

@testable import HCApp

@Suite("configuration of the edge")
struct EdgeConfigurationTests {
    private func load(_ http: String, profile: String = "local") throws -> AppConfiguration {
        let tls = profile == "production" ? #""tls":{"certificatesDirectory":"/etc/hc/tls"},"# : ""
        let text = """
            {"profile":"\(profile)","baseDomain":"clinics.example.org",\(tls)
             "stateDirectory":"/var/lib/hc","secretsDirectory":"/etc/hc","masterKeyFile":"/etc/hc/master.key",
             "tokenKeyFile":"/etc/hc/token.key","redis":{"socket":"/run/hc/redis.sock"},"http":\(http)}
            """
        return try AppConfiguration.load(Array(text.utf8), source: "hc.json", environment: [:])
    }

    @Test("an old file still loads, with the defaults of its profile")
    func defaults() throws {
        let local = try load("{}")
        #expect(local.http.connectionsPerAddressMax == local.http.connectionsMax)
        #expect(local.http.trustedProxies.isEmpty)
        #expect(local.http.proxyProtocol.isEmpty)
        #expect(local.admission.inFlightMax == 2048)
        #expect(try load("{}", profile: "production").http.connectionsPerAddressMax == 1024)
        #expect(try load(#"{"connectionsPerAddressMax":7}"#).http.connectionsPerAddressMax == 7)
    }

    @Test("what is named is taken")
    func named() throws {
        let loaded = try load(
            #"{"connectionsMax":5000,"trustedProxies":["10.0.0.0/8","fd00::1"],"#
                + #""proxyProtocol":["tls"],"requestsInFlightMax":10,"queueTarget":"20ms"}"#)
        #expect(loaded.http.connectionsMax == 5000)
        #expect(loaded.http.trustedProxies.blocks.map(\.description) == ["10.0.0.0/8", "fd00::1"])
        #expect(loaded.http.proxyProtocol == [.tls])
        #expect(loaded.admission.inFlightMax == 10)
        #expect(loaded.admission.inFlightMin == 10)
        #expect(loaded.admission.queueTarget == .milliseconds(20))
        #expect(loaded.http.problems().isEmpty)
        #expect(loaded.admission.problems().isEmpty)
    }

    @Test("every problem is told with what to do")
    func problems() throws {
        let error = #expect(throws: ConfigurationError.self) {
            try load(
                #"{"connectionsMax":1,"trustedProxies":["10.1.0.0/8","localhost"],"#
                    + #""proxyProtocol":["ops"],"queueTarget":"1h"}"#)
        }
        let paths = error?.problems.map(\.path) ?? []
        #expect(
            paths.sorted() == [
                "http.connectionsMax", "http.proxyProtocol", "http.queueTarget",
                "http.trustedProxies", "http.trustedProxies",
            ])
        let alone = #expect(throws: ConfigurationError.self) {
            try load(#"{"proxyProtocol":["tls"]}"#)
        }
        #expect(alone?.problems.map(\.path) == ["http.proxyProtocol"])
    }

    @Test("the handbook's keys are the configuration's, with its defaults")
    func handbook() throws {
        let handbook = try Repository.contents(of: Repository.path("admin/README.md"))
        let rows = handbook.split(separator: "\n").filter { $0.hasPrefix("| `http.") }
        #expect(rows.count >= 6)
        var members: [String] = []
        for row in rows {
            let cells = row.split(separator: "|").map { $0.split(separator: "`") }
            let key = try #require(cells.first?.dropFirst().first).dropFirst("http.".count)
            let value = try #require(cells.dropFirst().first?.dropFirst().first)
            members.append("\"\(key)\":\(value)")
        }
        let said = try load("{\(members.joined(separator: ","))}", profile: "production")
        let silent = try load("{}", profile: "production")
        #expect(said.http.connectionsMax == silent.http.connectionsMax)
        #expect(said.http.connectionsPerAddressMax == silent.http.connectionsPerAddressMax)
        #expect(said.http.proxyProtocol == silent.http.proxyProtocol)
        #expect(said.admission.inFlightMax == silent.admission.inFlightMax)
        #expect(said.admission.queueTarget == silent.admission.queueTarget)
    }
}
