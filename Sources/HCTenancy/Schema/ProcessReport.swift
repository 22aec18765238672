package import HCCore
import HCPostgres

/// What a process that serves tells the control database of itself, every few seconds: so it is known who would not
/// survive the contract of a migration (`program_process`).
package struct ProcessReport: Sendable {
    /// One process' life: the same number on another machine, or later, is another process.
    package var id: UUID
    /// `hc-server`, and which worker of it.
    package var name: String
    package var host: String
    package var processIdentifier: Int32
    package var version: String
    package var control: SchemaRange
    package var shard: SchemaRange
    package var startedAt: Timestamp
    /// Shards that it does not serve, and why.
    package var refused: [(shard: ShardID, refusal: SchemaRefusal)]

    /// Refused shards that one report names: with a wrong release it may be all of a thousand.
    package static let refusedMax = 32

    package init(
        id: UUID, name: String, host: String, processIdentifier: Int32,
        version: String = PlatformVersion.text, control: SchemaRange = .control,
        shard: SchemaRange, startedAt: Timestamp,
        refused: [(shard: ShardID, refusal: SchemaRefusal)] = []
    ) {
        self.id = id
        self.name = name
        self.host = host
        self.processIdentifier = processIdentifier
        self.version = version
        self.control = control
        self.shard = shard
        self.startedAt = startedAt
        self.refused = refused
    }

    /// How the sessions of a process on shards are called: a contract ends those of processes that do not report themselves
    /// any more, and knows them by the identifier at the end.
    package static func sessionName(_ name: String, _ id: UUID) -> String { "\(name) \(id)" }

    var query: Query {
        Query(
            "SELECT program_process_report($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                .uuid(id), .text(name), .text(host), .int4(processIdentifier), .text(version),
                .int4(Int32(control.lowest)), .int4(Int32(control.highest)),
                .int4(Int32(shard.lowest)), .int4(Int32(shard.highest)), .timestamp(startedAt),
                .json(reasons),
            ])
    }

    var farewell: Query { Query("SELECT program_process_leave($1)", [.uuid(id)]) }

    private var reasons: [UInt8] {
        var json = JSONWriter()
        json.beginArray()
        for (shard, refusal) in refused.prefix(ProcessReport.refusedMax) {
            json.value(["shard": .string(shard.text), "reason": .string("\(refusal)")])
        }
        json.endArray()
        return json.finish().bytes
    }
}
