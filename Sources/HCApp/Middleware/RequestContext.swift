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
    /// Set by `TenantMiddleware`.
    var tenant: TenantContext?
    /// Set by `AccessMiddleware` on routes that need a login.
    var actor: Actor?
    /// What the limit said; `ObservationMiddleware` takes it, for its headers go onto the answer, whatever that is.
    var limit: RateDecision?

    nonisolated init(match: RouteMatch) {
        self.match = match
    }
}
