import HCCore
import HCTenancy

/// What a client says over a socket: one JSON object per text message (`admin/events.md`).
enum EventCommand: Equatable, Sendable {
    case subscribe(id: String?, topics: [String], after: EventSequence?)
    case unsubscribe(id: String?, topics: [String])
    case ping(id: String?)

    var id: String? {
        switch self {
        case .subscribe(let id, _, _), .unsubscribe(let id, _), .ping(let id): id
        }
    }

    /// - Throws: what is wrong with it.
    static func parse(_ text: [UInt8]) throws(EventRefusal) -> EventCommand {
        let object: JSONObject
        do {
            guard let parsed = try JSONReader.parse(text).asObject else {
                throw EventRefusal(.malformed)
            }
            object = parsed
        } catch let refusal as EventRefusal {
            throw refusal
        } catch {
            throw EventRefusal(.malformed)
        }
        let id = try self.id(in: object)
        guard let type = object["type"]?.asString else { throw EventRefusal(.malformed, id: id) }
        switch type {
        case "subscribe":
            try allow(["type", "id", "topics", "after"], in: object, id)
            return .subscribe(
                id: id, topics: try topics(in: object, id), after: try after(in: object, id))
        case "unsubscribe":
            try allow(["type", "id", "topics"], in: object, id)
            return .unsubscribe(id: id, topics: try topics(in: object, id))
        case "ping":
            try allow(["type", "id"], in: object, id)
            return .ping(id: id)
        default: throw EventRefusal(.unknownType, id: id)
        }
    }

    /// A client's own name for a request, echoed in its answers: a string, at most so long.
    private static let idBytesMax = 64

    private static func id(in object: JSONObject) throws(EventRefusal) -> String? {
        guard let value = object["id"], !value.isNull else { return nil }
        guard let id = value.asString, id.utf8.count <= idBytesMax else {
            throw EventRefusal(.malformed)
        }
        return id
    }

    /// A misspelled member must not change what is meant.
    private static func allow(
        _ names: Set<String>, in object: JSONObject, _ id: String?
    ) throws(EventRefusal) {
        guard object.names.allSatisfy(names.contains) else {
            throw EventRefusal(.malformed, id: id)
        }
    }

    private static func topics(
        in object: JSONObject, _ id: String?
    ) throws(EventRefusal) -> [String] {
        guard let values = object["topics"]?.asArray, !values.isEmpty else {
            throw EventRefusal(.malformed, id: id)
        }
        guard values.count <= EventSocketLimits.topicsMax else {
            throw EventRefusal(.tooManyTopics, id: id)
        }
        var texts: [String] = []
        for value in values {
            guard let text = value.asString else { throw EventRefusal(.malformed, id: id) }
            texts.append(text)
        }
        return texts
    }

    private static func after(
        in object: JSONObject, _ id: String?
    ) throws(EventRefusal) -> EventSequence? {
        guard let value = object["after"], !value.isNull else { return nil }
        guard let sequence = value.asInteger.flatMap({ EventSequence($0) }) else {
            throw EventRefusal(.malformed, id: id)
        }
        return sequence
    }
}

/// Why a request was not done; the socket stays.
struct EventRefusal: Error, Equatable {
    enum Code: String, CaseIterable {
        /// No JSON object with the members that it must have, and no others.
        case malformed
        case unknownType = "unknown-type"
        case invalidTopic = "invalid-topic"
        case tooManyTopics = "too-many-topics"
        case forbidden
        /// Nothing of this clinic has that id.
        case notFound = "not-found"
        case rateLimited = "rate-limited"
        /// Redis, the database or the audit is away: ask again later.
        case unavailable
    }

    var code: Code
    var id: String?
    var topic: String?

    init(_ code: Code, id: String? = nil, topic: String? = nil) {
        self.code = code
        self.id = id
        self.topic = topic
    }
}

/// What the server says.
enum EventAnswer {
    case welcome(endsAt: Timestamp)
    /// From here on every event of these topics comes.
    case subscribed(id: String?, topics: [String], sequence: EventSequence)
    case unsubscribed(id: String?, topics: [String])
    case event(TenantEvent, topic: String)
    /// What happened to the topic before `sequence` is not known any more: read it anew.
    case resync(topic: String, sequence: EventSequence)
    case error(EventRefusal)
    /// With a sequence: everything up to it has been sent for every topic of the socket.
    case pong(id: String?, sequence: EventSequence?)

    static let protocolName = "hc.events.v1"

    var text: ByteBuffer {
        var writer = JSONWriter()
        writer.beginObject()
        switch self {
        case .welcome(let endsAt):
            writer.member("type", "welcome")
            writer.member("protocol", EventAnswer.protocolName)
            writer.member("endsAt", endsAt)
            writer.member("topicsMax", EventSocketLimits.topicsMax)
        case .subscribed(let id, let topics, let sequence):
            writer.member("type", "subscribed")
            writer.member("id", id)
            writer.member("topics", topics)
            writer.member("sequence", sequence.number)
        case .unsubscribed(let id, let topics):
            writer.member("type", "unsubscribed")
            writer.member("id", id)
            writer.member("topics", topics)
        case .event(let event, let topic):
            writer.member("type", "event")
            writer.member("topic", topic)
            writer.member("sequence", event.sequence.number)
            writer.member("event", event.name)
            writer.member("id", event.entity)
            writer.member("version", event.version)
            writer.member("at", event.at)
            writer.member("eventId", event.id)
        case .resync(let topic, let sequence):
            writer.member("type", "resync")
            writer.member("topic", topic)
            writer.member("sequence", sequence.number)
        case .error(let refusal):
            writer.member("type", "error")
            writer.member("id", refusal.id)
            writer.member("code", refusal.code.rawValue)
            if let topic = refusal.topic { writer.member("topic", topic) }
        case .pong(let id, let sequence):
            writer.member("type", "pong")
            writer.member("id", id)
            if let sequence { writer.member("sequence", sequence.number) }
        }
        writer.endObject()
        return writer.finish()
    }
}
