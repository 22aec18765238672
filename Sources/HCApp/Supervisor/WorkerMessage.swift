import HCCore

/// What a worker and its supervisor say to each other over their socket: one JSON document a line.
enum WorkerMessage: Sendable {
    /// Worker: requests are being served.
    case ready
    /// Worker, every second.
    case heartbeat(Heartbeat)
    /// Supervisor: send your metrics. The number comes back with them.
    case metricsWanted(request: Int)
    /// Worker.
    case metrics(request: Int, MetricsSnapshot)
    /// Something that another release says: during an upgrade the two ends are not of the same.
    case unknown

    struct Heartbeat: Sendable, Equatable {
        var residentBytes: Int
        var lagMicroseconds: Int
        var connections: Int
        /// Whether the worker could serve a clinic: its directory is loaded, and there is a shard that it knows.
        var isServing: Bool
        /// Databases that it does not work with, and why.
        var refusals = Refusals()
    }

    /// What a worker does not serve because of the schema.
    struct Refusals: Sendable, Equatable {
        struct Shard: Sendable, Equatable {
            var id: String
            var reason: String
        }

        /// Of the control database.
        var control: String?
        /// In the order of their ids; with a wrong release it may be all of a thousand, of which `shardsMax` are named.
        var shards: [Shard] = []
        var shardCount = 0

        static let shardsMax = 32
    }

    /// The longest line that is read: metrics of one worker with every label set in use stay far below.
    static let lineBytesMax = 4 << 20

    var line: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        switch self {
        case .ready:
            json.member("kind", "ready")
        case .heartbeat(let beat):
            json.member("kind", "heartbeat")
            beat.write(to: &json)
        case .metricsWanted(let request):
            json.member("kind", "metricsWanted")
            json.member("request", request)
        case .metrics(let request, let snapshot):
            json.member("kind", "metrics")
            json.member("request", request)
            json.key("snapshot")
            snapshot.write(to: &json)
        case .unknown: json.member("kind", "unknown")
        }
        json.endObject()
        return json.finish().bytes + [UInt8(ascii: "\n")]
    }

    /// - Returns: nil for a line that no release of HC writes.
    init?(line: [UInt8]) {
        let value: JSONValue
        do {
            value = try JSONReader.parse(line, limits: WorkerMessage.limits)
        } catch {
            return nil
        }
        let request = value["request"]?.asInteger.map { Int($0) }
        switch value["kind"]?.asString {
        case "ready": self = .ready
        case "heartbeat":
            guard let beat = Heartbeat(value) else { return nil }
            self = .heartbeat(beat)
        case "metricsWanted":
            guard let request else { return nil }
            self = .metricsWanted(request: request)
        case "metrics":
            guard let request, let snapshot = value["snapshot"] else { return nil }
            do {
                self = .metrics(request: request, try MetricsSnapshot(json: snapshot))
            } catch {
                return nil
            }
        case .some: self = .unknown
        case nil: return nil
        }
    }

    private static let limits = JSONLimits(
        bytesMax: lineBytesMax, depthMax: 16, elementsMax: 1_000_000)
}

extension WorkerMessage.Heartbeat {
    /// Writes its members into an open object.
    func write(to json: inout JSONWriter) {
        json.member("residentBytes", residentBytes)
        json.member("lagMicroseconds", lagMicroseconds)
        json.member("connections", connections)
        json.member("isServing", isServing)
        guard refusals != WorkerMessage.Refusals() else { return }
        json.member("refusedControl", refusals.control)
        json.member("refusedShardCount", refusals.shardCount)
        json.member(
            "refusedShards",
            .array(refusals.shards.map { ["id": .string($0.id), "reason": .string($0.reason)] }))
    }

    init?(_ value: JSONValue) {
        guard let resident = value["residentBytes"]?.asInteger,
            let lag = value["lagMicroseconds"]?.asInteger,
            let connections = value["connections"]?.asInteger,
            let isServing = value["isServing"]?.asBool
        else { return nil }
        self.init(
            residentBytes: Int(resident), lagMicroseconds: Int(lag), connections: Int(connections),
            isServing: isServing, refusals: WorkerMessage.Refusals(value))
    }
}

extension WorkerMessage.Refusals {
    init(control: String?, shards: [(id: String, reason: String)]) {
        self.init(
            control: control,
            shards: shards.prefix(WorkerMessage.Refusals.shardsMax).map {
                Shard(id: $0.id, reason: $0.reason)
            }, shardCount: shards.count)
    }

    /// Of a heartbeat, that of a release that tells none too.
    fileprivate init(_ value: JSONValue) {
        control = value["refusedControl"]?.asString
        shards = (value["refusedShards"]?.asArray ?? []).compactMap { shard in
            guard let id = shard["id"]?.asString, let reason = shard["reason"]?.asString else {
                return nil
            }
            return Shard(id: id, reason: reason)
        }
        shardCount = value["refusedShardCount"]?.asInteger.flatMap(Int.init(exactly:)) ?? 0
    }
}

/// Cuts a stream of bytes into lines.
struct LineSplitter {
    /// The beginning of a line whose end has not come.
    private(set) var rest: [UInt8] = []

    /// The lines that are complete now, without their newlines.
    /// - Returns: nil when a line is longer than `WorkerMessage.lineBytesMax`: the peer is not one of ours.
    mutating func feed(_ bytes: UnsafeRawBufferPointer) -> [[UInt8]]? {
        rest.append(contentsOf: bytes)
        var lines: [[UInt8]] = []
        var start = 0
        while let newline = rest[start...].firstIndex(of: UInt8(ascii: "\n")) {
            lines.append(Array(rest[start..<newline]))
            start = newline + 1
        }
        rest.removeFirst(start)
        return rest.count <= WorkerMessage.lineBytesMax ? lines : nil
    }
}
