/// What is known about a route without running it: middleware decides by it, tests and API documents are made
/// from it.
package final class RouteDescription: Sendable {
    package enum Access: Sendable, Hashable {
        /// Anyone who reaches the host.
        case open
        /// Anyone who is logged in.
        case authenticated
        /// Whoever is logged in and holds this permission.
        case permission(String)
    }

    package let method: HTTPMethod
    /// "/v1/patients/{id}": literals and parameters; a parameter is a whole segment.
    package let pattern: String
    /// The operation, unique in the table: "readPatient".
    package let name: String
    package let access: Access
    /// Which rule of the tier limits it: "read", "login", "booking".
    package let limitClass: String
    /// When it is refused while the server has too much to do.
    package let lane: RequestLane
    /// What the audit log calls it; nil for what is not audited.
    package let auditAction: String?
    /// Whether an `Idempotency-Key` is understood.
    package let acceptsIdempotencyKey: Bool
    /// Whether the request must say which version it changes (428 without `If-Match`).
    package let requiresIfMatch: Bool
    /// Whether its answers may be compressed: never where an answer holds a secret beside text that the sender of
    /// the request could choose (`CompressionMiddleware`).
    package let mayCompress: Bool
    /// The largest content in bytes, decoded; 0 for routes that take none.
    package let bodyBytesMax: Int
    package let summary: String

    /// The pattern in pieces.
    package let segments: [Segment]

    package enum Segment: Sendable, Hashable {
        case literal(String)
        case parameter(String)
    }

    package init(
        _ method: HTTPMethod, _ pattern: String, name: String, access: Access,
        limitClass: String = "default", lane: RequestLane = .interactive,
        auditAction: String? = nil,
        acceptsIdempotencyKey: Bool = false, requiresIfMatch: Bool = false,
        mayCompress: Bool = false, bodyBytesMax: Int = 1 << 20, summary: String = ""
    ) {
        precondition(pattern.hasPrefix("/"), "a pattern begins with a slash: \(pattern)")
        self.method = method
        self.pattern = pattern
        self.name = name
        self.access = access
        self.limitClass = limitClass
        self.lane = lane
        self.auditAction = auditAction
        self.acceptsIdempotencyKey = acceptsIdempotencyKey
        self.requiresIfMatch = requiresIfMatch
        self.mayCompress = mayCompress
        self.bodyBytesMax = bodyBytesMax
        self.summary = summary
        segments = pattern.dropFirst().split(separator: "/", omittingEmptySubsequences: false).map {
            part in
            guard part.hasPrefix("{") else {
                precondition(!part.contains { $0 == "{" || $0 == "}" }, "not a pattern: \(pattern)")
                return .literal(String(part))
            }
            precondition(part.hasSuffix("}") && part.count > 2, "not a pattern: \(pattern)")
            return .parameter(String(part.dropFirst().dropLast()))
        }
        let names = parameterNames
        precondition(Set(names).count == names.count, "a parameter twice: \(pattern)")
    }

    package var parameterNames: [String] {
        segments.compactMap { segment in
            if case .parameter(let name) = segment { name } else { nil }
        }
    }
}
