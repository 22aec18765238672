package import HCCore

/// `Tests/EndToEndTests/Load/ledger.py` against a platform: writers of several clinics that keep a ledger of what was
/// acknowledged to them.
package final class LedgerClient: Sendable {
    /// Who writes, and how many at a time.
    package struct Clinic: Sendable {
        package var slug: String
        package var email: String
        package var password: String
        package var writers: Int

        package init(slug: String, email: String, password: String, writers: Int = 1) {
            self.slug = slug
            self.email = email
            self.password = password
            self.writers = writers
        }
    }

    /// What the writers of one clinic have seen.
    package struct Page: Sendable {
        package let json: JSONValue

        package var acknowledged: Int { Int(json["acknowledged"]?.asInteger ?? -1) }
        /// Answers that were neither an acknowledgement nor "an earlier try is at it still".
        package var failures: Int {
            json["failures"]?.asObject?.names.reduce(0) {
                $0 + Int(json["failures"]?[$1]?.asInteger ?? 0)
            } ?? -1
        }
        package var failureText: String {
            "\(json["failures"]?.text ?? "?"), such as \(json["samples"]?.text ?? "?")"
        }
        /// The longest time between two acknowledgements.
        package var longestSilence: Duration {
            .milliseconds(json["longestMilliseconds"]?.asInteger ?? -1)
        }
        /// Whether the writes that were waited for have come.
        package var isServed: Bool { json["isServed"]?.asBool == true }

        /// Of the whole ledger: what is wrong with it, in words.
        package var wrongs: [String] {
            [
                ("lost", "acknowledged writes are lost"), ("doubled", "writes are there twice"),
                ("alien", "patients are there whom nobody registered"),
                ("unread", "acknowledged writes were not read right afterwards"),
            ].compactMap { name, text in
                guard let names = json[name]?.asArray else { return "the ledger has no '\(name)'" }
                return names.isEmpty ? nil : "\(text): \(json[name]?.text ?? "")"
            }
        }
    }

    private let child: Subprocess

    /// Returns when every clinic has let its owner in.
    ///
    /// - Parameter run: a name that no earlier run had; letters and digits.
    package init(_ platform: RunningPlatform, run: String, clinics: [Clinic]) throws {
        child = try Subprocess(
            "/usr/bin/python3", [Repository.path("Tests/EndToEndTests/Load/ledger.py")])
        let configuration: JSONValue = [
            "address": "127.0.0.1", "port": .integer(Int64(platform.port)), "run": .string(run),
            "clinics": .array(
                clinics.map {
                    [
                        "slug": .string($0.slug),
                        "host": .string("\($0.slug).localhost:\(platform.port)"),
                        "email": .string($0.email), "password": .string($0.password),
                        "writers": .integer(Int64($0.writers)),
                    ]
                }),
        ]
        try child.write(configuration.text + "\n")
        _ = try ask("mark")
    }

    /// Waits until every clinic has acknowledged so many writes more than now.
    package func advance(by count: Int, within seconds: Int) throws -> [String: Page] {
        try ask("reach \(count) \(seconds)")
    }

    /// Begins no more, waits for what is owed, and compares.
    package func stop() throws -> [String: Page] {
        let pages = try ask("stop")
        let code = try child.wait()
        guard code == 0 else { throw FixtureError("the ledger's clients ended with \(code)") }
        return pages
    }

    private func ask(_ command: String) throws -> [String: Page] {
        try child.write(command + "\n")
        var seen = ""
        while let line = try child.readLine() {
            guard line.hasPrefix("{") else {
                seen += line + "\n"
                continue
            }
            let pages = try JSONReader.parse(Array(line.utf8))
            return (pages.asObject?.names ?? []).reduce(into: [:]) { result, slug in
                result[slug] = pages[slug].map { Page(json: $0) }
            }
        }
        throw FixtureError("the ledger's clients ended: \(seen)")
    }
}
