package import HCCore

/// How one JSON value becomes a value of ours, or why it does not.
package struct FieldRule<Value: Sendable>: Sendable {
    package struct Refusal: Error, Sendable {
        let code: InvalidField.Code
        let message: String

        init(_ code: InvalidField.Code, _ message: String) {
            self.code = code
            self.message = message
        }
    }

    /// Stands in for a value that was refused, until `FieldReader.finish()` throws.
    let placeholder: Value
    let read: @Sendable (JSONValue) throws(Refusal) -> Value

    init(placeholder: Value, read: @escaping @Sendable (JSONValue) throws(Refusal) -> Value) {
        self.placeholder = placeholder
        self.read = read
    }

    /// A rule for strings on top of this one.
    fileprivate static func string(
        _ placeholder: Value, _ parse: @escaping @Sendable (String) throws(Refusal) -> Value
    ) -> FieldRule {
        FieldRule(placeholder: placeholder) { (json) throws(Refusal) in
            guard let text = json.asString else {
                throw Refusal(.wrongType, "must be a string, not \(json.kind)")
            }
            return try parse(text)
        }
    }
}

extension FieldRule where Value == String {
    /// One line of text, trimmed, without control characters. Lengths count Unicode scalars: a
    /// character may be made of any number of them.
    package static func line(_ length: ClosedRange<Int>) -> FieldRule {
        string("") { (text) throws(Refusal) in
            try TextRules.check(text, length: length, allowsLines: false)
        }
    }

    /// Text that may have line feeds and tabs.
    package static func lines(_ length: ClosedRange<Int>) -> FieldRule {
        string("") { (text) throws(Refusal) in
            try TextRules.check(text, length: length, allowsLines: true)
        }
    }

    package static var personName: FieldRule { line(1...100) }

    /// RFC 5321 lengths, and the shape of an address: something, one `@`, a domain with a dot.
    package static var email: FieldRule {
        string("") { (text) throws(Refusal) in
            let text = try TextRules.check(text, length: 3...254, allowsLines: false)
            guard TextRules.isEmail(text) else {
                throw Refusal(.invalidFormat, "must be an email address")
            }
            return text
        }
    }

    /// Digits as people write them, 5 to 15 of them, with an optional `+` in front.
    package static var phone: FieldRule {
        string("") { (text) throws(Refusal) in
            let text = try TextRules.check(text, length: 3...32, allowsLines: false)
            guard TextRules.isPhone(text) else {
                throw Refusal(
                    .invalidFormat,
                    "must be a phone number with 5 to 15 digits, best as +14155550100")
            }
            return text
        }
    }

    /// A BCP 47 language tag, by its shape.
    package static var languageTag: FieldRule {
        string("") { (text) throws(Refusal) in
            guard TextRules.isLanguageTag(text) else {
                throw Refusal(.invalidFormat, "must be a language tag such as en or pt-BR")
            }
            return text
        }
    }

    /// An ISO 4217 code, by its shape.
    package static var currency: FieldRule {
        string("") { (text) throws(Refusal) in
            guard text.utf8.count == 3, text.utf8.allSatisfy({ $0 >= 0x41 && $0 <= 0x5A }) else {
                throw Refusal(.invalidFormat, "must be a currency code such as EUR")
            }
            return text
        }
    }

    /// A zone that the machine's tz database has.
    package static func timeZone(in catalog: ZoneCatalog) -> FieldRule {
        string("") { (text) throws(Refusal) in
            guard catalog.rules(named: text) != nil else {
                throw Refusal(.notAllowed, "must be an IANA time zone such as Europe/Berlin")
            }
            return text
        }
    }

    /// A secret: taken as it is, only its length is looked at here.
    package static func secret(_ length: ClosedRange<Int>) -> FieldRule {
        string("") { (text) throws(Refusal) in
            let count = text.utf8.count
            if count < length.lowerBound { throw Refusal(.tooShort, "is too short") }
            if count > length.upperBound { throw Refusal(.tooLong, "is too long") }
            return text
        }
    }
}

extension FieldRule where Value == CalendarDate {
    /// A day that exists, between two days.
    package static func date(_ range: ClosedRange<CalendarDate>) -> FieldRule {
        string(range.lowerBound) { (text) throws(Refusal) in
            guard let date = CalendarDate(iso8601: text) else {
                throw Refusal(.invalidFormat, "must be a date that exists, as YYYY-MM-DD")
            }
            guard range.contains(date) else {
                throw Refusal(
                    .outOfRange, "must be from \(range.lowerBound) to \(range.upperBound)")
            }
            return date
        }
    }
}

extension FieldRule where Value == Timestamp {
    package static var instant: FieldRule {
        string(.epoch) { (text) throws(Refusal) in
            guard let instant = Timestamp(rfc3339: text) else {
                throw Refusal(
                    .invalidFormat, "must be an RFC 3339 instant with offset: 2026-03-08T14:00:00Z")
            }
            guard instant >= TextRules.firstInstant, instant <= TextRules.lastInstant else {
                throw Refusal(.outOfRange, "must be between the years 1900 and 2200")
            }
            return instant
        }
    }
}

extension FieldRule where Value == Bool {
    package static var flag: FieldRule {
        FieldRule(placeholder: false) { (json) throws(Refusal) in
            guard let value = json.asBool else {
                throw Refusal(.wrongType, "must be true or false, not \(json.kind)")
            }
            return value
        }
    }
}

extension FieldRule where Value == Int {
    package static func integer(_ range: ClosedRange<Int>) -> FieldRule {
        FieldRule(placeholder: range.lowerBound) { (json) throws(Refusal) in
            guard let value = json.asInteger else {
                throw Refusal(.wrongType, "must be a whole number, not \(json.kind)")
            }
            guard let value = Int(exactly: value), range.contains(value) else {
                throw Refusal(
                    .outOfRange, "must be from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
    }
}

extension FieldRule {
    package static func id<Kind>() -> FieldRule where Value == Identifier<Kind> {
        string(Identifier(.zero)) { (text) throws(Refusal) in
            guard let id = Identifier<Kind>(text) else {
                throw Refusal(.invalidFormat, "must be a UUID")
            }
            return id
        }
    }

    /// One of the names of an enumeration.
    package static func choice(of allowed: [Value]) -> FieldRule
    where Value: RawRepresentable, Value.RawValue == String {
        precondition(!allowed.isEmpty, "a choice has something to choose from")
        let names = allowed.map(\.rawValue).joined(separator: ", ")
        return string(allowed[0]) { (text) throws(Refusal) in
            guard let value = allowed.first(where: { $0.rawValue == text }) else {
                throw Refusal(.notAllowed, "must be one of \(names)")
            }
            return value
        }
    }

    /// A list, each element by `element`; the first wrong one is named by its position.
    package static func list<Element: Sendable>(
        of element: FieldRule<Element>, count: ClosedRange<Int>
    ) -> FieldRule where Value == [Element] {
        FieldRule(placeholder: []) { (json) throws(Refusal) in
            guard let values = json.asArray else {
                throw Refusal(.wrongType, "must be an array, not \(json.kind)")
            }
            if values.count < count.lowerBound {
                throw Refusal(.tooShort, "must have at least \(count.lowerBound) elements")
            }
            if values.count > count.upperBound {
                throw Refusal(.tooMany, "must have at most \(count.upperBound) elements")
            }
            var elements: [Element] = []
            for (position, value) in values.enumerated() {
                do throws(FieldRule<Element>.Refusal) {
                    elements.append(try element.read(value))
                } catch {
                    throw Refusal(error.code, "[\(position)] \(error.message)")
                }
            }
            return elements
        }
    }
}
