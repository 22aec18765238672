/// Why the control plane did not do what it was asked to: what was wrong, where, and what to do about it.
package struct ControlError: Error, Sendable, CustomStringConvertible {
    /// Decides the exit status of a command; never decided by text.
    package enum Kind: Sendable, Equatable {
        /// The request cannot be meant: a malformed slug, an unknown tier.
        case invalid
        /// A check refused: nothing was changed.
        case refused
        case notFound
        /// It exists already, or somebody else is at it.
        case conflict
        /// A database or another dependency failed; what was begun has been undone or can be run again.
        case failed
    }

    package let kind: Kind
    /// Stable, for machines: `slug-taken`, `shard-unreachable`.
    package let code: String
    package let message: String
    /// What the operator can do next.
    package let remedy: String?
    /// The cause, as far as it may be shown: no value of a tenant is ever in it.
    package let cause: String?

    package init(
        _ kind: Kind, code: String, _ message: String, remedy: String? = nil,
        cause: (any Error)? = nil
    ) {
        self.kind = kind
        self.code = code
        self.message = message
        self.remedy = remedy
        self.cause = cause.map { "\($0)" }
    }

    package var description: String {
        var text = message
        if let cause { text += ": \(cause)" }
        if let remedy { text += "\n\(remedy)" }
        return text
    }
}
