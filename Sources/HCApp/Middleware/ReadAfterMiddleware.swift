import HCClinic
import HCHTTP
import HCIO
import HCTenancy

/// Whoever has written finds it in what is read afterwards, also where a replica answers.
///
/// Within a session this needs nothing of the client. An answer to a write also carries `HC-Read-After`: sent along with
/// a request of another session, it makes that one find the write too.
struct ReadAfterMiddleware: Middleware {
    func applies(to route: RouteDescription?) -> Bool {
        route.map { $0.access != .open } ?? false
    }

    /// To be called when it is known whose session it is.
    @LoopActor
    static func begin(_ request: HTTPRequest, _ tenant: TenantContext, session: SessionID) {
        // Several fields are one text that opens as no token: then the primary answers.
        let token =
            request.headers.contains(.hcReadAfter)
            ? request.headers.values(.hcReadAfter).joined(separator: ",") : nil
        tenant.setReader(session: session, after: token)
    }

    func leave(
        _ request: HTTPRequest, _ context: RequestContext, _ response: inout HTTPResponse
    ) -> StageExit {
        guard context.withTenant({ $0.hasWritten }) == true, let reading = context.tenant else {
            return .done
        }
        return .pending { answer in
            guard let token = await reading.finishReading(deadline: request.deadline) else {
                return answer
            }
            var answer = answer
            answer.headers.append(.hcReadAfter, token)
            return answer
        }
    }
}
