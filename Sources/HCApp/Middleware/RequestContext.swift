import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// What is known about one request: filled by the middleware, from outside in.
@LoopActor
final class RequestContext {
    nonisolated let match: RouteMatch
    /// Set by `AdmissionMiddleware`.
    var admission: AdmissionControl.Place?
    private var clinic: Clinic?
    /// Set by `AccessMiddleware` on routes that need a login.
    var actor: Actor?
    /// What the limit said; `ObservationMiddleware` takes it, for its headers go onto the answer, whatever that is.
    var limit: RateDecision?

    /// A reference that cannot be copied is lent without being counted.
    private struct Clinic: ~Copyable {
        let tenant: TenantContext
    }

    nonisolated init(match: RouteMatch) {
        self.match = match
    }

    /// To be called by `TenantMiddleware`.
    func found(_ tenant: consuming TenantContext) { clinic = Clinic(tenant: tenant) }

    /// Lends the clinic to `body`, for what has to be asked of it with each request; nil before it is found.
    func withTenant<Answer>(_ body: (TenantContext) throws -> Answer) rethrows -> Answer? {
        switch clinic {
        case .some(let clinic): try body(clinic.tenant)
        case .none: nil
        }
    }

    /// The clinic, to be kept.
    var tenant: TenantContext? { withTenant { $0 } }
}
