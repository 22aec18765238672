import HCCore
import HCIO
import HCTenancy

extension Actor {
    var auditActor: AuditEvent.Actor {
        switch identity {
        case .account(let id, _): .account(id.uuid)
        case .system: .system
        }
    }

    /// An audit event of this actor.
    func event(
        _ action: StaticString, _ entity: StaticString, _ id: UUID? = nil,
        outcome: AuditEvent.Outcome = .success, detail: JSONObject = JSONObject()
    ) -> AuditEvent {
        AuditEvent(
            actor: auditActor, action: action, entity: entity, entityID: id, outcome: outcome,
            requestID: requestID.description, detail: detail)
    }
}

extension TenantContext {
    /// How far the actor may go. A refusal is recorded before it is given.
    ///
    /// - Throws: `forbidden`.
    @LoopActor
    func require(
        _ permission: Permission, of actor: Actor, on entity: StaticString, _ id: UUID? = nil,
        deadline: Deadline
    ) async throws -> Scope {
        if let scope = actor.scope(of: permission) { return scope }
        try await recordDenial(of: permission, to: actor, on: entity, id, deadline: deadline)
        throw ClinicError.forbidden
    }

    @LoopActor
    func recordDenial(
        of permission: Permission, to actor: Actor, on entity: StaticString, _ id: UUID? = nil,
        deadline: Deadline
    ) async throws {
        var detail = JSONObject()
        detail.insert(.string(permission.rawValue), for: "permission")
        try await record(
            actor.event("deny", entity, id, outcome: .denied, detail: detail), deadline: deadline)
    }
}

extension JSONObject {
    init(_ members: (String, JSONValue)...) {
        self.init()
        for (name, value) in members { insert(value, for: name) }
    }

    static func fields(_ names: [String]) -> JSONObject {
        JSONObject(("fields", .array(names.map { .string($0) })))
    }
}
