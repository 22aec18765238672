import HCCore

/// What a command has to say: the same facts for machines and for people.
struct Report: Sendable {
    /// The one document of `--json`.
    var json: JSONValue
    /// What a person reads; without a final newline.
    var text: String
    /// Not `done` when the command did its work and the answer is bad news, as `doctor` does.
    var status = ExitStatus.done
}
