import HCControl
import HCCore
import HCCrypto
import HCIO
import HCTenancy

struct DirectoryMeasure: Command {
    static let specification = CommandSpecification(
        path: ["directory", "measure"],
        summary: "Loads the map of all clinics as a worker does, and says what it costs.",
        discussion: """
            Time to read it from the control database and from a file, memory, and the time to find a clinic
            by its host. Changes nothing; the file is written to the state directory and removed.
            """,
        options: [.value("lookups", "N", "Clinics to find, 1 to 100000000; 1000000.")],
        examples: ["directory measure", "directory measure --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let lookups = try invocation.integer("lookups", in: 1...100_000_000) ?? 1_000_000
        let configuration = try environment.configuration()
        let scratch = "\(configuration.stateDirectory)/directory.measured"
        defer {
            Files.remove(scratch)
            Files.remove("\(scratch).lock")
        }
        var random = SystemRandom()
        let found = try await DirectoryMeasurement.make(
            configuration: configuration, clocks: environment.clocks, scratch: scratch,
            lookups: lookups, using: &random)
        let each = max(1, found.tenants)
        func milliseconds(_ duration: Duration) -> Int64 { duration.inMilliseconds }
        return Report(
            json: [
                "tenants": .integer(Int64(found.tenants)),
                "loadMilliseconds": .integer(milliseconds(found.loading)),
                "bytes": .integer(Int64(found.bytes)),
                "bytesPerTenant": .integer(Int64(found.bytes / each)),
                "lookupNanoseconds": .integer(found.lookup.inNanoseconds),
                "fileBytes": .integer(Int64(found.fileBytes)),
                "fileWriteMilliseconds": .integer(milliseconds(found.fileWriting)),
                "fileReadMilliseconds": .integer(milliseconds(found.fileReading)),
            ],
            text: HelpText.columns([
                ("clinics", "\(found.tenants)"),
                ("read from the database", "\(milliseconds(found.loading)) ms"),
                ("memory", "\(found.bytes >> 10) KiB, \(found.bytes / each) bytes a clinic"),
                ("finding one by its host", "\(found.lookup.inNanoseconds) ns"),
                (
                    "as a file",
                    "\(found.fileBytes >> 10) KiB, written in \(milliseconds(found.fileWriting)) ms,"
                        + " read in \(milliseconds(found.fileReading)) ms"
                ),
            ]).trimmedFinalNewline)
    }
}
