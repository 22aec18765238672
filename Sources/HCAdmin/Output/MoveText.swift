import HCControl
import HCCore
import HCIO

/// Moves as people read them.
@LoopActor
enum MoveText {
    /// - Parameter together: who of its group it would meet.
    static func report(
        _ move: Move, outcome: String? = nil, together: [String]? = nil
    ) -> Report {
        Report(
            json: json(move, outcome, together),
            text: HelpText.columns((outcome.map { [("outcome", $0)] } ?? []) + lines(move))
                .trimmedFinalNewline,
            status: isBad(move) && outcome == nil ? .failed : .done)
    }

    private static func json(
        _ move: Move, _ outcome: String?, _ together: [String]?
    ) -> JSONValue {
        var json = move.json
        if let outcome { json = json.adding(["outcome": .string(outcome)]) }
        if let together {
            json = json.adding(["together": .array(together.map { .string($0) })])
        }
        return json
    }

    /// A move that was begun and undone by itself is bad news for who began it.
    private static func isBad(_ move: Move) -> Bool {
        switch move.state {
        case .failed: true
        case .aborted: move.progress["abortReason"]?.asString != "asked for"
        default: false
        }
    }

    static func lines(_ move: Move) -> [(String, String)] {
        var lines = [
            ("move", "\(move.id.uuid)"),
            ("clinic", move.slug),
            ("from", "\(move.origin) to \(move.destination)"),
            ("state", "\(move.state.rawValue) (\(move.step.rawValue))"),
            ("attempt", "\(move.attempt)"),
            ("begun", "\(move.createdAt.rfc3339) by \(move.operatorName)"),
        ]
        func add(_ name: String, _ text: String?) {
            if let text, !text.isEmpty { lines.append((name, text)) }
        }
        add("reason", move.reason)
        add("meets its group", move.together.joined(separator: ", "))
        add("rows", move.progress["rows"]?.asInteger.map { "\($0)" })
        if move.step == .subscribed {
            add("copied", move.progress["copiedRows"]?.asInteger.map { "\($0) rows" })
            add("left", move.progress["secondsLeft"]?.asInteger.map { "about \($0) s" })
            add("behind", move.progress["lagBytes"]?.asInteger.map(bytes))
        }
        add("copied in", move.progress["copyMilliseconds"]?.asInteger.map { "\($0) ms" })
        add(
            "pause",
            move.progress["pauseMicroseconds"]?.asInteger.map { "\(Double($0) / 1000) ms" })
        add("pauses tried", move.progress["pauseTries"]?.asInteger.map { "\($0)" })
        add("last pause", move.progress["lastPause"]?.asString)
        add("waits for", move.progress["waitingFor"]?.asString)
        add("undone for", move.progress["abortReason"]?.asString)
        add("no way back", move.progress["wayBackLost"]?.asString)
        if let shard = move.givenUp {
            let left = (move.progress["leftBehind"]?.asArray ?? []).compactMap(\.asString)
            add(
                "ended without",
                "shard \(shard)"
                    + (left.isEmpty ? "" : ", where there may be: \(left.joined(separator: ", "))"))
        }
        if move.state == .soaking { add("soaks until", move.soakUntil?.rfc3339) }
        if let checks = move.progress["soakChecks"]?.asInteger,
            let at = move.progress["soakCheckedAt"]?.asString
        {
            add(
                "compared",
                "\(checks) times while it soaked, last at \(at): "
                    + (move.progress["soakDifference"]?.asString ?? "both sides are equal"))
        }
        add("over", move.finishedAt?.rfc3339)
        return lines
    }

    /// The signed manifest, if there is one yet: the whole of it is in the JSON.
    static func manifestLines(_ move: Move) -> [(String, String)] {
        guard let manifest = move.manifest else { return [] }
        let tables = (manifest["tables"]?.asArray ?? []).map { table in
            (
                "  " + (table["name"]?.asString ?? ""),
                "\(table["rows"]?.asInteger ?? 0) rows, \(table["digest"]?.asString ?? "")"
            )
        }
        return [
            (
                "manifest",
                "signed with key \(manifest["signature"]?["key"]?.asString ?? "?"); both sides had"
            )
        ] + tables
    }

    static func line(_ move: Move, _ reason: String) -> String {
        "\(move.slug): \(move.step.rawValue)" + (reason.isEmpty ? "" : ", waits for \(reason)")
    }

    static func teller(_ environment: AdminEnvironment) -> MoveService.Tell {
        let tell = environment.tell
        var last = ""
        return { move, reason in
            let line = MoveText.line(move, reason)
            if line != last { tell(line) }
            last = line
        }
    }

    static func bytes(_ count: Int64) -> String {
        switch count {
        case ..<1024: "\(count) B"
        case ..<(1 << 20): "\(count >> 10) KiB"
        case ..<(1 << 30): "\(count >> 20) MiB"
        default: "\(count >> 30) GiB"
        }
    }
}
