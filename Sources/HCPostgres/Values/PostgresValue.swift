package import HCCore

/// A value bound to a parameter (`$1`) of a ``Query``.
///
/// Each case names the type that the server is told: `.text` bound to an enum or `"char"` column needs a cast
/// in the SQL (`$1::"char"`). A `.null` leaves the type to the server.
/// Values are patients' data more often than not: a value prints as `***`.
package enum PostgresValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case int2(Int16)
    case int4(Int32)
    case int8(Int64)
    case double(Double)
    /// Refused with ``PostgresError/Kind/encode`` when it holds a NUL character, which the server cannot store.
    case text(String)
    case bytes([UInt8])
    case uuid(UUID)
    case timestamp(Timestamp)
    case date(CalendarDate)
    /// One JSON document in UTF-8, bound as `jsonb`. The server checks its syntax.
    case json([UInt8])
    case timestampRange(TimestampRange)
    case uuids([UUID])
    case texts([String])
    case int8s([Int64])
    case byteas([[UInt8]])
    case timestamps([Timestamp])

    /// What the server is told that the parameter is.
    var type: PostgresType {
        switch self {
        case .null: .unspecified
        case .bool: .bool
        case .int2: .int2
        case .int4: .int4
        case .int8: .int8
        case .double: .float8
        case .text: .text
        case .bytes: .bytea
        case .uuid: .uuid
        case .timestamp: .timestamptz
        case .date: .date
        case .json: .jsonb
        case .timestampRange: .tstzrange
        case .uuids: .uuidArray
        case .texts: .textArray
        case .int8s: .int8Array
        case .byteas: .byteaArray
        case .timestamps: .timestamptzArray
        }
    }
}

extension PostgresValue {
    package static func optional(_ value: String?) -> PostgresValue {
        value.map { .text($0) } ?? .null
    }
    package static func optional(_ value: UUID?) -> PostgresValue {
        value.map { .uuid($0) } ?? .null
    }
    package static func optional(_ value: [UInt8]?) -> PostgresValue {
        value.map { .bytes($0) } ?? .null
    }
    package static func optional(_ value: Timestamp?) -> PostgresValue {
        value.map { .timestamp($0) } ?? .null
    }
    package static func optional(_ value: CalendarDate?) -> PostgresValue {
        value.map { .date($0) } ?? .null
    }
    package static func optional(_ value: Int64?) -> PostgresValue {
        value.map { .int8($0) } ?? .null
    }
    package static func optional(_ value: Int32?) -> PostgresValue {
        value.map { .int4($0) } ?? .null
    }
    package static func optional<Kind>(_ value: Identifier<Kind>?) -> PostgresValue {
        value.map { .uuid($0.uuid) } ?? .null
    }
    package static func id<Kind>(_ value: Identifier<Kind>) -> PostgresValue { .uuid(value.uuid) }
}

extension PostgresValue: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var debugDescription: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .enum) }
}

/// A half-open span of time, `[lower, upper)`: what a booking occupies (`tstzrange`). A nil bound is unbounded.
package struct TimestampRange: Hashable, Sendable {
    package var lower: Timestamp?
    package var upper: Timestamp?

    package init(lower: Timestamp?, upper: Timestamp?) {
        self.lower = lower
        self.upper = upper
    }
}
