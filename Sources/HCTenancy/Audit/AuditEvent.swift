package import HCCore

/// Who did what to whose data, when, why, and how it ended. One row of `audit_event`.
///
/// Nothing here may say anything about a patient in clear: names of actions and entities are constants of the
/// program, ids are opaque, and everything else goes into `detail`, which is sealed.
package struct AuditEvent: Sendable {
    package enum Actor: Hashable, Sendable {
        case account(UUID)
        /// Nobody has been authenticated.
        case anonymous
        case `operator`(UUID?)
        case system
    }

    package enum Outcome: String, Sendable {
        case success
        case denied
        case failure
    }

    package var actor: Actor
    /// `read`, `search`, `create`, `login`, …
    package var action: StaticString
    /// `patient`, `appointment`, …
    package var entity: StaticString
    package var entityID: UUID?
    package var outcome: Outcome
    /// Of the HTTP request or the command: 1 to 64 characters, also in the log and in the answer.
    package var requestID: String
    /// Why the data was wanted (`treatment`, `operations`, …). Sealed with the detail.
    package var purpose: StaticString
    /// Sealed: may hold what was searched for, which fields were changed, how many rows were found.
    package var detail: JSONObject

    package init(
        actor: Actor, action: StaticString, entity: StaticString, entityID: UUID? = nil,
        outcome: Outcome = .success, requestID: String, purpose: StaticString = "treatment",
        detail: JSONObject = JSONObject()
    ) {
        self.actor = actor
        self.action = action
        self.entity = entity
        self.entityID = entityID
        self.outcome = outcome
        self.requestID = requestID
        self.purpose = purpose
        self.detail = detail
    }
}

extension AuditEvent.Actor {
    var kind: String {
        switch self {
        case .account: "account"
        case .anonymous: "anonymous"
        case .operator: "operator"
        case .system: "system"
        }
    }

    var id: UUID? {
        switch self {
        case .account(let id): id
        case .operator(let id): id
        case .anonymous, .system: nil
        }
    }
}

/// Something that others must hear of: written in the transaction it tells of, relayed after it.
package struct OutboxMessage: Sendable {
    /// What happened: `appointment.booked`, …
    package var topic: StaticString
    /// Ids and versions only. What sockets may follow has `id`, `version` and `topics`: the names under which they
    /// follow it.
    package var payload: JSONObject

    package init(topic: StaticString, payload: JSONObject) {
        self.topic = topic
        self.payload = payload
    }
}
