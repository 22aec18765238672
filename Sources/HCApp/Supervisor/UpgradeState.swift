import HCCore
import HCCrypto
import HCHTTP

/// What one program of the supervisor leaves to the next, as a document: which descriptors are what, and what is known
/// of each worker.
///
/// A new program reads the versions that it knows and refuses others in its check, before anything has changed. So
/// the number is raised only for what an older program would misunderstand; members that it does not know it skips.
struct UpgradeState: Equatable, Sendable {
    static let version = 1

    struct Program: Equatable, Sendable {
        /// Descriptors.
        var file: Int32
        var configuration: Int32
    }

    struct Worker: Equatable, Sendable {
        var member: SupervisorStateMachine.Member
        /// The descriptor of our end of its channel; -1 if the channel has ended.
        var channel: Int32
        /// The beginning of a line that has not arrived whole.
        var received: [UInt8]
        /// What its socket has not taken.
        var unsent: [UInt8]
        var heartbeat: WorkerMessage.Heartbeat?
        var metrics: MetricsSnapshot?
    }

    /// Comes back with the check's answer: it is this document that was understood.
    var nonce: String
    /// The path that programs are started from.
    var path: String
    var configurationFile: String
    var configuration: Int32
    var sockets: [ListeningSockets.Socket]
    /// What runs until now, for the way back; nil if the replacement is that way.
    var previous: Program?
    var generation: Int
    var workers: [Worker]
    /// The totals of workers that are gone and of the supervisor itself: a program that is replaced makes no
    /// counter step back.
    var totals: MetricsSnapshot

    /// The descriptors that have to stay open.
    var descriptors: [Int32] {
        sockets.map(\.descriptor) + [configuration] + workers.map(\.channel).filter { $0 >= 0 }
            + (previous.map { [$0.file, $0.configuration] } ?? [])
    }

    /// What a check answers that has understood this document.
    var answer: String { "hc-server understands \(nonce)\n" }

    // MARK: The document

    var bytes: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.member("version", UpgradeState.version)
        json.member("nonce", nonce)
        json.member("path", path)
        json.member("configurationFile", configurationFile)
        json.member("configuration", Int(configuration))
        json.key("sockets")
        json.beginArray()
        for socket in sockets { UpgradeState.write(socket, to: &json) }
        json.endArray()
        if let previous {
            json.key("previous")
            json.beginObject()
            json.member("file", Int(previous.file))
            json.member("configuration", Int(previous.configuration))
            json.endObject()
        }
        json.member("generation", generation)
        json.key("workers")
        json.beginArray()
        for worker in workers { UpgradeState.write(worker, to: &json) }
        json.endArray()
        json.key("totals")
        totals.write(to: &json)
        json.endObject()
        return json.finish().bytes
    }

    private static func write(_ socket: ListeningSockets.Socket, to json: inout JSONWriter) {
        json.beginObject()
        json.member("role", socket.role.rawValue)
        json.member("slot", socket.slot)
        json.member("address", socket.address)
        json.member("descriptor", Int(socket.descriptor))
        json.endObject()
    }

    private static func write(_ worker: Worker, to json: inout JSONWriter) {
        let known = worker.member.worker
        json.beginObject()
        json.member("slot", worker.member.slot)
        json.member("role", worker.member.role.rawValue)
        json.member("process", Int(known.process))
        json.member("startedAt", known.startedAt.nanoseconds)
        json.member("generation", known.generation)
        json.member("hasServed", known.hasServed)
        switch known.health {
        case .starting(let deadline):
            json.member("health", "starting")
            json.member("deadline", deadline.nanoseconds)
        case .ready(let lastHeartbeat):
            json.member("health", "ready")
            json.member("lastHeartbeat", lastHeartbeat.nanoseconds)
        case .draining(let deadline):
            json.member("health", "draining")
            json.member("deadline", deadline.nanoseconds)
        case .killed: json.member("health", "killed")
        }
        json.member("channel", Int(worker.channel))
        json.member("received", Hex.encode(worker.received))
        json.member("unsent", Hex.encode(worker.unsent))
        if let beat = worker.heartbeat {
            json.key("heartbeat")
            json.beginObject()
            beat.write(to: &json)
            json.endObject()
        }
        if let metrics = worker.metrics {
            json.key("metrics")
            metrics.write(to: &json)
        }
        json.endObject()
    }
}

/// A document that this program cannot take over from.
struct UpgradeStateError: Error, Equatable, CustomStringConvertible {
    let description: String
}

extension UpgradeState {
    /// - Throws: `UpgradeStateError` for another version, and for what no supervisor writes.
    init(_ bytes: [UInt8]) throws(UpgradeStateError) {
        let value: JSONValue
        do {
            value = try JSONReader.parse(bytes, limits: UpgradeState.limits)
        } catch {
            throw UpgradeStateError(description: "the state is no document: \(error)")
        }
        let document = Reader(value: value, path: "")
        let version = try document.integer("version")
        guard version == UpgradeState.version else {
            throw UpgradeStateError(
                description:
                    "the state has version \(version); this program understands \(UpgradeState.version)"
            )
        }
        nonce = try document.string("nonce")
        path = try document.string("path")
        configurationFile = try document.string("configurationFile")
        configuration = try document.descriptor("configuration")
        sockets = try document.array("sockets").map { socket throws(UpgradeStateError) in
            ListeningSockets.Socket(
                role: try socket.choice("role"), slot: try socket.integer("slot"),
                address: try socket.string("address"),
                descriptor: try socket.descriptor("descriptor"))
        }
        previous = try document.object("previous").map { program throws(UpgradeStateError) in
            Program(
                file: try program.descriptor("file"),
                configuration: try program.descriptor("configuration"))
        }
        generation = try document.integer("generation")
        workers = try document.array("workers").map { worker throws(UpgradeStateError) in
            try UpgradeState.readWorker(worker)
        }
        totals = try document.metrics("totals") ?? MetricsSnapshot()
        try checkPlaces()
    }

    private static func readWorker(_ worker: Reader) throws(UpgradeStateError) -> Worker {
        let health: SupervisorStateMachine.Health
        switch try worker.string("health") {
        case "starting": health = .starting(deadline: try worker.time("deadline"))
        case "ready": health = .ready(lastHeartbeat: try worker.time("lastHeartbeat"))
        case "draining": health = .draining(deadline: try worker.time("deadline"))
        case "killed": health = .killed
        case let other: throw UpgradeStateError(description: "workers.health: '\(other)'")
        }
        return Worker(
            member: SupervisorStateMachine.Member(
                slot: try worker.integer("slot"), role: try worker.choice("role"),
                worker: SupervisorStateMachine.Worker(
                    process: try worker.number("process"), startedAt: try worker.time("startedAt"),
                    generation: try worker.integer("generation"), health: health,
                    hasServed: try worker.bool("hasServed"))),
            channel: try worker.number("channel"), received: try worker.bytes("received"),
            unsent: try worker.bytes("unsent"),
            heartbeat: worker.value["heartbeat"].flatMap { WorkerMessage.Heartbeat($0) },
            metrics: try worker.metrics("metrics"))
    }

    /// A slot has one socket, and at most one worker of a kind.
    private func checkPlaces() throws(UpgradeStateError) {
        let slots = sockets.filter { $0.role == .http }.map(\.slot)
        guard !slots.isEmpty, slots.sorted() == Array(0..<slots.count) else {
            throw UpgradeStateError(description: "sockets: one per slot")
        }
        var taken: Set<[Int]> = []
        for member in workers.map(\.member) {
            let isAlone =
                member.role == .retiring
                || taken.insert([member.slot, member.role == .active ? 0 : 1]).inserted
            guard slots.indices.contains(member.slot), isAlone else {
                throw UpgradeStateError(description: "workers: one of a kind per slot")
            }
        }
    }

    private static let limits = JSONLimits(
        bytesMax: 256 << 20, depthMax: 16, elementsMax: 10_000_000)
}

/// Reads members that have to be there.
private struct Reader {
    let value: JSONValue
    let path: String

    private func missing(_ name: String) -> UpgradeStateError {
        UpgradeStateError(description: "\(path)\(name): missing or of another kind")
    }

    private func require<Value>(
        _ name: String, _ found: Value?
    ) throws(UpgradeStateError) -> Value {
        guard let found else { throw missing(name) }
        return found
    }

    func string(_ name: String) throws(UpgradeStateError) -> String {
        try require(name, value[name]?.asString)
    }

    func integer(_ name: String) throws(UpgradeStateError) -> Int {
        try require(name, value[name]?.asInteger.flatMap { Int(exactly: $0) })
    }

    func number(_ name: String) throws(UpgradeStateError) -> Int32 {
        try require(name, value[name]?.asInteger.flatMap { Int32(exactly: $0) })
    }

    func descriptor(_ name: String) throws(UpgradeStateError) -> Int32 {
        let number = try number(name)
        // 0 to 2 are the standard ones.
        return try require(name, number > 2 ? number : nil)
    }

    func bool(_ name: String) throws(UpgradeStateError) -> Bool {
        try require(name, value[name]?.asBool)
    }

    func time(_ name: String) throws(UpgradeStateError) -> MonotonicTime {
        MonotonicTime(nanoseconds: try require(name, value[name]?.asInteger))
    }

    func bytes(_ name: String) throws(UpgradeStateError) -> [UInt8] {
        try require(name, Hex.decode(try string(name)))
    }

    func choice<Choice: RawRepresentable<String>>(
        _ name: String
    ) throws(UpgradeStateError) -> Choice {
        try require(name, Choice(rawValue: try string(name)))
    }

    func array(_ name: String) throws(UpgradeStateError) -> [Reader] {
        try require(name, value[name]?.asArray).map { Reader(value: $0, path: "\(path)\(name).") }
    }

    func object(_ name: String) -> Reader? {
        value[name].map { Reader(value: $0, path: "\(path)\(name).") }
    }

    func metrics(_ name: String) throws(UpgradeStateError) -> MetricsSnapshot? {
        guard let value = value[name] else { return nil }
        do {
            return try MetricsSnapshot(json: value)
        } catch {
            throw UpgradeStateError(description: "\(path)\(name): \(error)")
        }
    }
}
