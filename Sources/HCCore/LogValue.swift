/// A value of a log line. What can be one is a closed list, so that no object with a patient in it is
/// printed by accident.
package enum LogValue: Sendable, Equatable {
    case string(String)
    case integer(Int64)
    case double(Double)
    case bool(Bool)
    case uuid(UUID)
    case timestamp(Timestamp)
    /// Written in milliseconds with a fraction: name the key with `Milliseconds` at its end.
    case milliseconds(Duration)
    case strings([String])
    case null
    /// Something that was left out on purpose: `***`.
    case secret

    package static func integer(_ value: Int) -> LogValue { .integer(Int64(value)) }

    package static func identifier<Kind>(_ value: Identifier<Kind>) -> LogValue {
        .uuid(value.uuid)
    }

    package static func of<Value>(_ value: Sensitive<Value>) -> LogValue { .secret }
}

extension LogValue: ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByFloatLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(floatLiteral value: Double) { self = .double(value) }
}

extension JSONWriter {
    mutating func member(_ name: StaticString, _ value: LogValue) {
        switch value {
        case .string(let text): member(name, text)
        case .integer(let number): member(name, number)
        case .bool(let truth): member(name, truth)
        case .uuid(let id): member(name, id)
        case .timestamp(let time): member(name, time)
        case .strings(let texts): member(name, texts)
        case .secret: member(name, text: "***")
        case .double(let number):
            key(name)
            double(number)
        case .milliseconds(let duration):
            key(name)
            double(Double(duration.inMicroseconds) / 1000)
        case .null:
            key(name)
            null()
        }
    }
}
