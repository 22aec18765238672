/// What one command is called, takes and prints as help: the single source of parsing and of `--help`.
struct CommandSpecification: Sendable {
    /// One positional argument, in the order of the command line.
    struct Argument: Sendable {
        var name: String
        var help: String
        var isOptional = false
    }

    /// One `--name` or `--name VALUE`.
    struct Option: Sendable {
        var name: String
        /// What the value is called in help; nil for a switch.
        var value: String?
        var help: String
        /// Whether it may be given more than once.
        var isRepeatable = false

        static func flag(_ name: String, _ help: String) -> Option {
            Option(name: name, value: nil, help: help)
        }

        /// For the operators' audit.
        static let reason = Option.value(
            "reason", "TEXT", "Why, for the operators' audit; at most 500 characters.")

        /// Beside a command that shows a change and asks before it makes it.
        static let yes = Option.flag(
            "yes", "Do not ask; nothing is asked without a terminal either.")

        static func value(_ name: String, _ value: String, _ help: String) -> Option {
            Option(name: name, value: value, help: help)
        }

        /// One that may be given again, or once with commas between its values.
        static func values(_ name: String, _ value: String, _ help: String) -> Option {
            Option(name: name, value: value, help: help, isRepeatable: true)
        }
    }

    /// The words that name it: `["tenant", "create"]`.
    var path: [String]
    var summary: String
    var discussion = ""
    var arguments: [Argument] = []
    var options: [Option] = []
    /// Whether it changes something, and so takes `--dry-run`.
    var changes = false
    /// Complete command lines, without the program's name.
    var examples: [String]

    /// The options of every command, after its own.
    var allOptions: [Option] {
        var all = options
        if changes {
            all.append(.flag("dry-run", "Say what would be done, and do nothing."))
        }
        all.append(.flag("json", "Print one JSON document on standard output."))
        all.append(.flag("help", "Show this help."))
        return all
    }

    var usage: String {
        var words = ["hc-admin"] + path
        for argument in arguments {
            words.append(argument.isOptional ? "[\(argument.name)]" : argument.name)
        }
        words.append("[options]")
        return words.joined(separator: " ")
    }

    var helpText: String {
        var text = "\(summary)\n\nUsage: \(usage)\n"
        if !discussion.isEmpty { text += "\n\(discussion)\n" }
        if !arguments.isEmpty {
            text += "\nArguments:\n"
            text += HelpText.columns(arguments.map { ($0.name, $0.help) })
        }
        text += "\nOptions:\n"
        text += HelpText.columns(
            allOptions.map { option in
                ("--\(option.name)" + (option.value.map { " \($0)" } ?? ""), option.help)
            })
        text += "\nExamples:\n"
        for example in examples { text += "  hc-admin \(example)\n" }
        return text
    }
}

/// Lays out two columns the way manual pages do.
enum HelpText {
    static func columns(_ rows: [(String, String)]) -> String {
        let width = min(rows.map { $0.0.count }.max() ?? 0, 30)
        var text = ""
        for (left, right) in rows {
            let padding = String(repeating: " ", count: max(width - left.count, 0) + 2)
            text += "  \(left)\(padding)\(right)\n"
        }
        return text
    }
}
