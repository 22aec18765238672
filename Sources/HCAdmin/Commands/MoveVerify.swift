import HCControl
import HCCore
import HCIO
import HCTenancy

struct MoveVerify: Command {
    static let specification = CommandSpecification(
        path: ["move", "verify"],
        summary: "Checks the signed manifest of a move, with the master key file alone.",
        discussion: """
            FILE is a manifest, or what 'move show --json' printed. No database is asked: what is checked is that
            nobody has changed the document since the platform signed it. A manifest that was changed, cut short
            or signed under another master key is refused (exit 3).
            """,
        arguments: [.init(name: "FILE", help: "The document.")],
        examples: ["move verify sunrise-move.json", "move verify sunrise-move.json --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let file = invocation.argument(0)
        let bytes: [UInt8]
        do {
            bytes = try Files.read(file, bytesMax: 1 << 20)
        } catch {
            throw ControlError(
                .invalid, code: "bad-file", "\(file) cannot be read", remedy: "Name a file.",
                cause: error)
        }
        let manifest = try MoveManifest.verified(
            bytes, from: file, masterKeyFile: try environment.configuration().masterKeyFile)
        return Report(
            json: [
                "valid": true, "move": .string("\(manifest.move)"),
                "tenant": .string(manifest.slug),
                "source": .string(manifest.source.shard), "target": .string(manifest.target.shard),
                "rows": .integer(Int64(manifest.rows)),
                "committedAt": .string(manifest.times.committed.rfc3339),
                "pauseMicroseconds": .integer(manifest.pause.inMicroseconds),
            ],
            text: HelpText.columns([
                ("manifest", "as it was signed"), ("move", "\(manifest.move)"),
                ("clinic", manifest.slug),
                ("from", "\(manifest.source.shard) to \(manifest.target.shard)"),
                (
                    "rows",
                    "\(manifest.rows) in \(manifest.tables.count) tables, equal on both sides"
                ),
                ("committed", manifest.times.committed.rfc3339),
                ("pause", "\(Double(manifest.pause.inMicroseconds) / 1000) ms"),
            ]).trimmedFinalNewline)
    }
}
