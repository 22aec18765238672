import HCCore

/// A command line that was matched to its command: typed access to what the operator gave.
struct Invocation: Sendable {
    let specification: CommandSpecification
    private let arguments: [String]
    private let options: [String: String]

    var isDryRun: Bool { options["dry-run"] != nil }
    var wantsJSON: Bool { options["json"] != nil }

    /// - Throws: `UsageError` for an unknown option, a missing value, a missing or surplus argument.
    init(_ specification: CommandSpecification, words: [String]) throws(UsageError) {
        self.specification = specification
        var arguments: [String] = []
        var options: [String: String] = [:]
        var rest = words[...]
        var optionsEnded = false
        while let word = rest.popFirst() {
            guard word.hasPrefix("--"), !optionsEnded else {
                if word.hasPrefix("-"), word.count > 1, !optionsEnded {
                    throw UsageError("unknown option '\(word)'", specification)
                }
                arguments.append(word)
                continue
            }
            if word == "--" {
                optionsEnded = true
                continue
            }
            let body = word.dropFirst(2)
            let name = String(body.prefix { $0 != "=" })
            guard let option = specification.allOptions.first(where: { $0.name == name }) else {
                throw UsageError("unknown option '--\(name)'", specification)
            }
            guard options[name] == nil || option.isRepeatable else {
                throw UsageError("'--\(name)' is given twice", specification)
            }
            let inline = body.firstIndex(of: "=").map { String(body[body.index(after: $0)...]) }
            if option.value == nil {
                guard inline == nil else {
                    throw UsageError("'--\(name)' takes no value", specification)
                }
                options[name] = ""
            } else if let value = inline ?? rest.popFirst() {
                options[name] = options[name].map { "\($0),\(value)" } ?? value
            } else {
                throw UsageError("'--\(name)' needs a value", specification)
            }
        }
        let required = specification.arguments.filter { !$0.isOptional }.count
        if options["help"] == nil {
            guard arguments.count >= required else {
                let missing = specification.arguments[arguments.count].name
                throw UsageError("\(missing) is missing", specification)
            }
            guard arguments.count <= specification.arguments.count else {
                let surplus = arguments[specification.arguments.count]
                throw UsageError("'\(surplus)' is one argument too many", specification)
            }
        }
        self.arguments = arguments
        self.options = options
    }

    var wantsHelp: Bool { options["help"] != nil }

    /// The argument at a position that the specification declares as required.
    func argument(_ position: Int) -> String {
        precondition(position < arguments.count, "the specification declares fewer arguments")
        return arguments[position]
    }

    func optionalArgument(_ position: Int) -> String? {
        position < arguments.count ? arguments[position] : nil
    }

    func option(_ name: String) -> String? {
        precondition(specification.allOptions.contains { $0.name == name })
        return options[name]
    }

    /// The values of an option that may be given more than once, in their order.
    func values(_ name: String) -> [String] {
        (option(name) ?? "").split(separator: ",").map(String.init)
    }

    func flag(_ name: String) -> Bool { option(name) != nil }

    /// - Throws: `UsageError` for a reason that says nothing or is too long to keep.
    func reason() throws(UsageError) -> String? {
        guard let text = option("reason") else { return nil }
        guard (1...500).contains(text.count), text.contains(where: { !$0.isWhitespace }) else {
            throw UsageError("'--reason' takes 1 to 500 characters", specification)
        }
        return text
    }

    /// - Throws: `UsageError` unless the value is a number in `range`.
    func number(_ name: String, in range: ClosedRange<Double>) throws(UsageError) -> Double? {
        guard let text = option(name) else { return nil }
        guard let value = Double(text), range.contains(value) else {
            throw UsageError(
                "'--\(name)' takes a number from \(range.lowerBound) to \(range.upperBound),"
                    + " not '\(text)'", specification)
        }
        return value
    }

    /// - Throws: `UsageError` unless the value is a time in `range`, such as `250ms` or `1h`.
    func duration(
        _ name: String, in range: ClosedRange<Duration>
    ) throws(UsageError) -> Duration? {
        guard let text = option(name) else { return nil }
        guard let duration = Quantity.duration(text), range.contains(duration) else {
            throw UsageError(
                "'--\(name)' takes a time from \(Invocation.time(range.lowerBound)) to "
                    + "\(Invocation.time(range.upperBound)), such as 250ms or 1h, not '\(text)'",
                specification)
        }
        return duration
    }

    private static func time(_ duration: Duration) -> String {
        let milliseconds = duration.inMilliseconds
        if milliseconds % 86_400_000 == 0, milliseconds > 0 {
            return "\(milliseconds / 86_400_000)d"
        }
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000)s" : "\(milliseconds)ms"
    }

    /// - Throws: `UsageError` unless the value is a whole number in `range`.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(UsageError) -> Int? {
        guard let text = option(name) else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw UsageError(
                "'--\(name)' takes a whole number from \(range.lowerBound) to \(range.upperBound),"
                    + " not '\(text)'", specification)
        }
        return value
    }
}

/// The command line itself was wrong: exit status 2, with the way to the help.
struct UsageError: Error, Equatable {
    let reason: String
    let command: [String]

    init(_ reason: String, _ specification: CommandSpecification) {
        self.reason = reason
        command = specification.path
    }

    init(_ reason: String, command: [String] = []) {
        self.reason = reason
        self.command = command
    }

    var description: String {
        let help = (["hc-admin"] + command + ["--help"]).joined(separator: " ")
        return "\(reason); see '\(help)'"
    }
}
