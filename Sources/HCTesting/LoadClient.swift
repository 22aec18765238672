package import HCCore

/// `Tests/EndToEndTests/Load/load.py` against a platform: requests that begin by the clock, each in a ledger.
package final class LoadClient: Sendable {
    /// What was sent and what became of it.
    package struct Counts: Sendable {
        package let json: JSONValue

        private func number(_ name: String) -> Int { Int(json[name]?.asInteger ?? -1) }

        package var sent: Int { number("sent") }
        package var answered: Int { number("answered") }
        package var lost: Int { number("lostCount") }
        /// Answers to what nobody asked, and answers that name another request.
        package var doubled: Int { number("doubled") + number("mixed") }
        /// Connections that could not be opened.
        package var refused: Int { number("refusedCount") }
        /// Requests sent again because the server had said that it did not touch them.
        package var again: Int { number("again") }
        /// Those of them that found nobody to be sent to before the end.
        package var untouched: Int { number("untouched") }
        /// Connections that the server has said would end, by protocol.
        package func announced(_ wireProtocol: String) -> Int {
            Int(json["announced"]?[wireProtocol]?.asInteger ?? 0)
        }
        package var statuses: Set<String> {
            Set(json["statuses"]?.asObject?.names ?? [])
        }
        /// The ids of patients whose registration was acknowledged.
        package var created: [String] { json["created"]?.asArray?.compactMap(\.asString) ?? [] }
        /// Appointments whose booking was acknowledged.
        package var booked: Int { number("booked") }
        package var sockets: [Socket] { json["sockets"]?.asArray?.map { Socket(json: $0) } ?? [] }
        package var text: String { json.text }
    }

    /// What a socket that follows the calendar was told.
    package struct Socket: Sendable {
        package let json: JSONValue

        /// Appointments that were acknowledged and not told.
        package var missed: Int { json["missed"]?.asArray?.count ?? -1 }
        package var resyncs: Int { Int(json["resyncs"]?.asInteger ?? -1) }
        /// How often the server closed it to be replaced (1012).
        package var replaced: Int { Int(json["codes"]?["1012"]?.asInteger ?? 0) }
    }

    /// Whose calendar is booked and followed.
    package struct Calendar: Sendable {
        package var practitioner: String
        package var patient: String
        package var sockets: Int

        package init(practitioner: String, patient: String, sockets: Int = 4) {
            self.practitioner = practitioner
            self.patient = patient
            self.sockets = sockets
        }
    }

    private let child: Subprocess

    /// - Parameters:
    ///   - rate: requests a second.
    ///   - family: the name of the patients that it registers: one in fifty requests.
    ///   - http2: how many of ten requests go over HTTP/2, by prior knowledge.
    ///   - calendar: a new one: one in fifty requests books in it, and sockets follow it.
    package init(
        _ platform: RunningPlatform, token: String, family: String, rate: Int = 500, http2: Int = 4,
        calendar: Calendar? = nil
    ) throws {
        child = try Subprocess(
            "/usr/bin/python3", [Repository.path("Tests/EndToEndTests/Load/load.py")])
        let configuration: JSONValue = [
            "host": .string("sunrise.localhost:\(platform.port)"), "address": "127.0.0.1",
            "port": .integer(Int64(platform.port)), "token": .string(token),
            "rate": .integer(Int64(rate)), "http2": .integer(Int64(http2)),
            "family": .string(family),
            "events": calendar.map {
                [
                    "practitioner": .string($0.practitioner), "patient": .string($0.patient),
                    "sockets": .integer(Int64($0.sockets)), "from": "2031-01-01T00:00:00",
                ]
            } ?? .null,
        ]
        try child.write(configuration.text + "\n")
    }

    /// The counts so far.
    package func mark() throws -> Counts { try ask("mark") }

    /// Waits until so many requests more than now have been answered.
    @discardableResult
    package func advance(by count: Int) throws -> Counts {
        try ask("reach \(mark().answered + count)")
    }

    /// Sends no more, waits for what is owed, and returns the whole ledger.
    package func stop() throws -> Counts {
        let counts = try ask("stop")
        let code = try child.wait()
        guard code == 0 else { throw FixtureError("the load client ended with \(code)") }
        return counts
    }

    private func ask(_ command: String) throws -> Counts {
        try child.write(command + "\n")
        var seen = ""
        while let line = try child.readLine() {
            if line.hasPrefix("{") {
                return Counts(json: try JSONReader.parse(Array(line.utf8)))
            }
            seen += line + "\n"
        }
        throw FixtureError("the load client ended: \(seen)")
    }
}
