import CLinux
import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// Who asks, and whether the clinic's limits let the request through.
///
/// The token's signature is checked in memory, and the limits mostly with units that this process has leased. The
/// session, and the limits where Redis must be asked, cost one round trip together, or none while Redis is away (then
/// the session is looked up in PostgreSQL and the limit is a local share).
@LoopActor
final class AccessMiddleware: Middleware {
    private let auth: AuthService
    /// By the places of the routes.
    private let limits: [RouteLimits]

    init(auth: AuthService, routes: [RouteDescription]) {
        self.auth = auth
        limits = routes.map { RouteLimits($0) }
    }

    /// What is no route is answered as such, whoever asks.
    nonisolated func applies(to route: RouteDescription?) -> Bool {
        route.map { RouteClass($0) != .platform } ?? false
    }

    func enter(_ request: HTTPRequest, _ context: RequestContext) throws -> StageEntry {
        guard let place = context.match.place else { return .next }
        let limits = limits[place]
        let isPassed = try context.withTenant { try passNow(request, context, limits, $0) }
        guard isPassed == false, let tenant = context.tenant else { return .next }
        return .pending { [self] in
            try await pass(request, context, limits, tenant)
            return nil
        }
    }

    /// Lets a request through, or refuses it, if all that this takes is in memory.
    /// - Returns: false if something has to be waited for; then nothing has been taken.
    private func passNow(
        _ request: HTTPRequest, _ context: RequestContext, _ limits: RouteLimits,
        _ tenant: TenantContext
    ) throws -> Bool {
        let address = LimitAddress(request.remoteAddress)
        let now = auth.now
        if limits.isOpen {
            guard
                let limit = tenant.limitNow(
                    address: address, class: limits.kind, cost: limits.cost,
                    isExact: limits.isExact)
            else { return false }
            try admit(consume limit, context)
            return true
        }
        let claims: AccessClaims
        do throws(ClinicError) {
            claims = try verify(request, tenant, at: now)
        } catch {
            // A good token of another clinic is recorded before it is refused.
            if error.code == .tenantMismatch { return false }
            throw error
        }
        guard let entry = tenant.sessionNow(claims.session, at: now),
            let limit = tenant.limitNow(
                user: claims.account.uuid, address: address, class: limits.kind,
                cost: limits.cost, lane: limits.lane(claims), isExact: limits.isExact)
        else { return false }
        try admit(consume limit, context)
        context.actor = try auth.admit(claims, entry, requestID: request.id, at: now)
        ReadAfterMiddleware.begin(request, tenant, session: claims.session)
        return true
    }

    private func pass(
        _ request: HTTPRequest, _ context: RequestContext, _ limits: RouteLimits,
        _ tenant: TenantContext
    ) async throws {
        let address = LimitAddress(request.remoteAddress)
        if limits.isOpen {
            let answer = await tenant.gate(
                session: nil, address: address, class: limits.kind, cost: limits.cost,
                isExact: limits.isExact, deadline: request.deadline)
            return try admit(answer.limit, context)
        }
        let claims = try await claims(of: request, context, tenant)
        let answer = await tenant.gate(
            session: claims.session, user: claims.account.uuid, address: address,
            class: limits.kind, cost: limits.cost, lane: limits.lane(claims),
            isExact: limits.isExact, deadline: request.deadline)
        try admit(answer.limit, context)
        context.actor = try await auth.admit(
            claims, answer.session, in: tenant, requestID: request.id,
            deadline: request.deadline)
        ReadAfterMiddleware.begin(request, tenant, session: claims.session)
    }

    private func claims(
        of request: HTTPRequest, _ context: RequestContext, _ tenant: TenantContext
    ) async throws -> AccessClaims {
        do throws(ClinicError) {
            return try verify(request, tenant, at: auth.now)
        } catch {
            if error.code == .tenantMismatch {
                try await recordMismatch(request, context, tenant)
            }
            throw error
        }
    }

    private func verify(
        _ request: HTTPRequest, _ tenant: TenantContext, at now: Timestamp
    ) throws(ClinicError) -> AccessClaims {
        let verified = AccessMiddleware.withBearer(request.headers) {
            token -> Result<AccessClaims, ClinicError> in
            do throws(ClinicError) {
                return .success(try auth.verify(token, in: tenant, at: now))
            } catch {
                return .failure(error)
            }
        }
        guard let verified else { throw ClinicError(.unauthenticated) }
        return try verified.get()
    }

    /// A good token of another clinic: recorded, and answered as if there were nothing here. Whoever has one makes this
    /// clinic's shard write, so it is counted as what comes without a login. Of the limit nothing is told as long as it
    /// lets through: a host that does not exist has none.
    private func recordMismatch(
        _ request: HTTPRequest, _ context: RequestContext, _ tenant: TenantContext
    ) async throws {
        let answer = await tenant.gate(
            session: nil, address: LimitAddress(request.remoteAddress),
            class: RouteClass.ticket.limitClass, cost: RouteClass.ticket.cost,
            deadline: request.deadline)
        if !answer.limit.isAllowed { try admit(answer.limit, context) }
        try await auth.recordTenantMismatch(
            in: tenant, requestID: request.id.description, deadline: request.deadline)
    }

    private func admit(
        _ limit: consuming RateDecision, _ context: RequestContext
    ) throws(Problem) {
        let refusal = limit.isAllowed ? nil : AccessMiddleware.refusal(limit)
        context.limit = limit
        if let refusal { throw refusal }
    }

    private static func refusal(_ limit: RateDecision) -> Problem {
        var problem = Problem(
            .tooManyRequests, code: "rate-limited", title: "Too Many Requests",
            detail: "\(AccessMiddleware.owner(limit.scope)) limit is used up for the moment.")
        if let rule = limit.ruleName {
            problem.extensions.set(.string(rule), for: "rule")
        }
        if let retryAfter = limit.retryAfterField {
            problem.headers.append(.retryAfter, retryAfter)
        }
        return problem
    }

    private static func owner(_ scope: RateScope?) -> StaticString {
        switch scope {
        case .user: "Your account's"
        case .address: "Your network address'"
        case .tenant, nil: "The clinic's"
        }
    }

    /// The token of `Authorization: Bearer …` (RFC 6750 2.1); the scheme in any case (RFC 9110 11.1). Two
    /// fields are none: which of them would count is anybody's guess.
    nonisolated static func withBearer<Answer>(
        _ headers: HTTPHeaders, _ body: (UnsafeRawBufferPointer) -> Answer
    ) -> Answer? {
        guard headers.count(of: .authorization) == 1 else { return nil }
        var answer: Answer?
        headers.lendValue(of: .authorization) { value in
            if let token = token(value) { answer = body(token) }
        }
        return answer
    }

    /// Without closures and with one search, for this runs for every request over a token of hundreds of bytes.
    private nonisolated static func token(
        _ value: UnsafeRawBufferPointer
    ) -> UnsafeRawBufferPointer? {
        let blank = UInt8(ascii: " ")
        let scheme: StaticString = "bearer"
        guard value.count > scheme.utf8CodeUnitCount else { return nil }
        for index in 0..<scheme.utf8CodeUnitCount
        where value[index] | 0x20 != scheme.utf8Start[index] {
            return nil
        }
        var start = scheme.utf8CodeUnitCount
        guard value[start] == blank else { return nil }
        while start < value.count, value[start] == blank { start += 1 }
        let token = UnsafeRawBufferPointer(rebasing: value[start...])
        guard let first = token.baseAddress, !token.isEmpty,
            memchr(first, Int32(blank), token.count) == nil
        else { return nil }
        return token
    }
}
