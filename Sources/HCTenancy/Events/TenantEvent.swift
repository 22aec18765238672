package import HCCore

/// Where an event stands in its clinic's stream. Grows with every event; clients resume by it.
///
/// It is Redis' clock in microseconds when the event was added, counted on where that would not be more than the one
/// before: unique and growing for a clinic, and below 2^53, which is what JavaScript can count to, until 2255. An
/// empty stream thus begins behind everything that was ever told of a former one.
package struct EventSequence: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let number: Int64

    /// - Returns: nil for what cannot be a place: zero and below, and what JSON numbers cannot hold.
    package init?(_ number: Int64) {
        guard number > 0, number < 1 << 53 else { return nil }
        self.number = number
    }

    package static func < (left: EventSequence, right: EventSequence) -> Bool {
        left.number < right.number
    }

    /// The place right before it.
    var predecessor: EventSequence { EventSequence(number - 1) ?? self }

    package var description: String { String(number) }
}

/// Something that happened in a clinic: which thing, which version of it, and who may be interested. Nothing in it
/// says anything about a patient but that there is something to read.
package struct TenantEvent: Hashable, Sendable {
    /// Of the message in the outbox: the same event has the same id however often it is sent.
    package let id: UUID
    package let sequence: EventSequence
    /// `appointment.booked`, …
    package let name: String
    package let topics: [String]
    package let entity: UUID
    package let version: Int64
    package let at: Timestamp

    package init(
        id: UUID, sequence: EventSequence, name: String, topics: [String], entity: UUID,
        version: Int64, at: Timestamp
    ) {
        self.id = id
        self.sequence = sequence
        self.name = name
        self.topics = topics
        self.entity = entity
        self.version = version
        self.at = at
    }
}

/// An entry of a stream as it is stored: `<previous>|<id>|<name>|<entity>|<version>|<at>|<topic>,<topic>`.
///
/// `previous` is the number of the entry before it: a reader that was somewhere else has missed something. A mark
/// (`0|`) stands where entries may be missing that nobody can name: at the beginning of a stream and after a restart
/// of Redis.
struct StreamEntry: Hashable, Sendable {
    let sequence: EventSequence
    /// Zero for a mark.
    let previous: Int64
    /// Nil for a mark, and for what another version of this program wrote.
    let event: TenantEvent?

    init(sequence: EventSequence, previous: Int64, event: TenantEvent?) {
        self.sequence = sequence
        self.previous = previous
        self.event = event
    }

    /// - Returns: nil for what is no entry of ours at all.
    init?(number: Int64, text: String) {
        guard let sequence = EventSequence(number) else { return nil }
        let fields = text.utf8.split(
            separator: UInt8(ascii: "|"), omittingEmptySubsequences: false
        ).map { Substring($0) }
        guard fields.count >= 2, let previous = Int64(fields[0]), previous >= 0 else { return nil }
        self.sequence = sequence
        self.previous = previous
        event = StreamEntry.event(fields, sequence)
    }

    private static func event(_ fields: [Substring], _ sequence: EventSequence) -> TenantEvent? {
        guard fields.count == 7, let id = UUID(String(fields[1])),
            let entity = UUID(String(fields[3])), let version = Int64(fields[4]),
            let at = Int64(fields[5])
        else { return nil }
        return TenantEvent(
            id: id, sequence: sequence, name: String(fields[2]),
            topics: fields[6].split(separator: ",").map(String.init), entity: entity,
            version: version, at: Timestamp(microseconds: at))
    }

    /// What follows `previous|` in the text of an event.
    static func text(of row: OutboxRow) -> String {
        "\(row.id)|\(row.name)|\(row.entity)|\(row.version)|\(row.at.microseconds)|"
            + row.topics.joined(separator: ",")
    }
}
