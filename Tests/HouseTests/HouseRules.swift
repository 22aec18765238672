/// What must not be in a source, as functions of its text, so that each rule can be shown a bad example.
enum HouseRules {
    struct Violation: Equatable, CustomStringConvertible {
        let line: Int
        let rule: String
        var description: String { "line \(line): \(rule)" }
    }

    /// We ship no library: rooms see each other by `package`.
    static func publicDeclarations(_ text: String) -> [Violation] {
        let tokens = SwiftTokens(text)
        let declarations: Set = [
            "class", "func", "var", "let", "subscript", "override", "static", "final", "import",
        ]
        let isPublic = tokens.positions(of: "public").filter { tokens[$0 - 1] != "." }
        let isOpen = tokens.positions(of: "open").filter {
            tokens[$0 - 1] != "." && declarations.contains(tokens[$0 + 1])
        }
        return (isPublic + isOpen).sorted().map {
            Violation(line: tokens.line(of: $0), rule: "nothing is public or open")
        }
    }

    /// Who is behind a proxy is decided in one place of HCHTTP: whoever reads these fields himself believes the client.
    static func forwardingFields(_ text: String) -> [Violation] {
        let tokens = SwiftTokens(text)
        return ["forwarded", "xForwardedFor", "xForwardedHost", "xForwardedProto"]
            .flatMap { tokens.positions(of: $0) }
            .filter { $0 > 0 && tokens[$0 - 1] == "." }.sorted()
            .map {
                Violation(
                    line: tokens.line(of: $0),
                    rule: "a request's remoteAddress, isSecure and host say who is behind a proxy")
            }
    }

    /// Tasks start on the loop (`Loop.spawn`), time passes by its timers, and nothing leaves it unseen.
    ///
    /// - Parameter isLoop: the loop itself makes the tasks that others spawn.
    static func strayConcurrency(_ text: String, isLoop: Bool = false) -> [Violation] {
        let tokens = SwiftTokens(text)
        var found: [Violation] = []
        func add(_ index: Int, _ rule: String) {
            found.append(Violation(line: tokens.line(of: index), rule: rule))
        }
        for index in tokens.positions(of: "Task") {
            let member = tokens[index + 1] == "." ? tokens[index + 2] : ""
            if ["init", "detached", "sleep", "immediate", "immediateDetached"].contains(member) {
                add(index, "no Task.\(member): spawn on the loop, wait by its timers")
            } else if !isLoop, makesTask(tokens, at: index) {
                add(index, "no bare Task: spawn on the loop")
            }
        }
        for word in ["@concurrent", "DispatchQueue", "DispatchSemaphore", "DispatchGroup"] {
            for index in tokens.positions(of: word) { add(index, "no \(word)") }
        }
        for word in ["sleep", "usleep", "nanosleep", "clock_nanosleep"] {
            for index in tokens.positions(of: word)
            where tokens[index + 1] == "(" && isCall(tokens, at: index) {
                add(index, "no \(word): it blocks the loop")
            }
        }
        return found.sorted { $0.line < $1.line }
    }

    /// A task of a test prefers the loop as its executor, as those of the programs do: the runtime lets one without a
    /// preference wait for its turn at every call of the loop's code, so that others run where none would.
    static func homelessTasks(_ text: String) -> [Violation] {
        let tokens = SwiftTokens(text)
        return tokens.positions(of: "Task").filter { index in
            makesTask(tokens, at: index)
                && !(tokens[index + 1] == "(" && tokens[index + 2] == "executorPreference")
        }.map {
            Violation(
                line: tokens.line(of: $0), rule: "Loop.shared.makeTask { … }")
        }
    }

    /// `Task {`, `Task(…)`, `Task<A, B> {`, but not the type alone, as a result or an annotation.
    private static func makesTask(_ tokens: SwiftTokens, at index: Int) -> Bool {
        let isDeclared = ["struct", "class", "enum", "extension", "."].contains(tokens[index - 1])
        let isResult = tokens[index - 1] == ">" && tokens[index - 2] == "-"
        let isAnnotation = tokens[index - 1] == ":"
        if isDeclared || isResult || isAnnotation { return false }
        var next = index + 1
        if tokens[next] == "<" {
            var depth = 0
            repeat {
                if tokens[next] == "<" { depth += 1 }
                if tokens[next] == ">" { depth -= 1 }
                next += 1
            } while depth > 0 && !tokens[next].isEmpty
        }
        return tokens[next] == "{" || tokens[next] == "("
    }

    /// A call of the C function, whose arguments have no labels: no method and no declaration.
    private static func isCall(_ tokens: SwiftTokens, at index: Int) -> Bool {
        if tokens[index + 3] == ":" { return false }
        let before = tokens[index - 1]
        if before == "." { return ["Glibc", "CLinux", "Thread"].contains(tokens[index - 2]) }
        return before != "func"
    }

    /// A write that failed must be heard.
    static func swallowedWrites(_ text: String) -> [Violation] {
        let writes: Set = [
            "execute", "transaction", "write", "writeAll", "copyIn", "commit", "evaluate",
            "replace",
        ]
        let tokens = SwiftTokens(text)
        return tokens.positions(of: "try").filter { tokens[$0 + 1] == "?" }.filter { index in
            let line = tokens.line(of: index)
            return tokens.tokens[index...].prefix { $0.line <= line + 1 }.contains { token in
                token.line == line && writes.contains(token.text)
            }
        }.map { Violation(line: tokens.line(of: $0), rule: "no try? on a write") }
    }

    /// Work that is not done is an issue, not a comment.
    static func openWork(_ text: String) -> [Violation] {
        // Written in halves, so that this file does not break its own rule.
        let marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X:"]
        return text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
            .filter { line in marks.contains { line.element.contains($0) } }
            .map { Violation(line: $0.offset + 1, rule: "no open work in the source") }
    }

    /// What the compiler does not check is proved by a comment directly above.
    static func unprovedPromises(_ text: String) -> [Violation] {
        let tokens = SwiftTokens(text)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let promised =
            tokens.positions(of: "@unchecked").filter { tokens[$0 + 1] == "Sendable" }
            + tokens.positions(of: "nonisolated").filter { tokens[$0 + 2] == "unsafe" }
            + tokens.positions(of: "@preconcurrency").filter { tokens[$0 + 1] != "import" }
        return promised.map { tokens.line(of: $0) }.sorted().filter { line in
            var above = line - 2
            // Over the first lines of the same declaration: attributes, and a list that goes on.
            while above >= 0 {
                let text = trimmed(lines[above])
                guard text.hasPrefix("@") || text.hasSuffix(",") || text.hasSuffix(":") else {
                    break
                }
                if text.hasPrefix("//") { break }
                above -= 1
            }
            return above < 0 || !trimmed(lines[above]).hasPrefix("//")
        }.map { Violation(line: $0, rule: "a comment directly above proves it") }
    }

    /// A test that waits by the clock is slow or wrong, and one that is skipped proves nothing.
    static func sleepingTests(_ text: String) -> [Violation] {
        let tokens = SwiftTokens(text)
        var found: [Violation] = []
        func add(_ index: Int, _ rule: String) {
            found.append(Violation(line: tokens.line(of: index), rule: rule))
        }
        for index in tokens.positions(of: "Task")
        where tokens[index + 1] == "." && tokens[index + 2] == "sleep" {
            add(index, "no sleep: time comes from the manual clock")
        }
        for word in ["sleep", "usleep", "nanosleep", "clock_nanosleep"] {
            for index in tokens.positions(of: word)
            where tokens[index + 1] == "(" && isCall(tokens, at: index) {
                add(index, "no sleep: time comes from the manual clock")
            }
        }
        for word in ["withKnownIssue", "XCTSkip", "XCTSkipIf", "XCTSkipUnless"] {
            for index in tokens.positions(of: word) { add(index, "no test is skipped") }
        }
        for word in ["disabled", "enabled"] {
            for index in tokens.positions(of: word)
            where tokens[index - 1] == "." && tokens[index + 1] == "("
                && [",", "(", "?"].contains(tokens[index - 2])
            {
                add(index, "no test is skipped")
            }
        }
        return found.sorted { $0.line < $1.line }
    }

    private static func trimmed(_ line: Substring) -> Substring {
        line.drop { $0 == " " || $0 == "\t" }
    }
}
