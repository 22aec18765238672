package import HCIO

/// What an application knows about one request. A class, for stages hand it on: one reference, whatever is in it.
package typealias RequestState = AnyObject & Sendable

/// A route's own code. `Context` is the application's type of what it knows about one request: made when the
/// request is routed, filled by middleware, typed.
package typealias Handler<Context: RequestState> =
    @LoopActor (HTTPRequest, Context) async throws -> HTTPResponse

/// The code of a route that mostly waits for nothing: it answers where the request was read, without a task.
package typealias ImmediateHandler<Context: RequestState> =
    @LoopActor (HTTPRequest, Context) throws -> ImmediateAnswer

package enum ImmediateAnswer {
    case ready(HTTPResponse)
    /// This time something has to be waited for.
    case pending(@LoopActor () async throws -> HTTPResponse)
}

/// What a responder makes of a request.
package enum HTTPAnswer {
    /// It is there.
    case ready(HTTPResponse)
    /// It comes later. To be awaited once, whoever may still want it: stages give back there what they took.
    case pending(@LoopActor () async -> HTTPResponse)

    /// The answer, waited for.
    @LoopActor package var value: HTTPResponse {
        get async {
            switch self {
            case .ready(let response): response
            case .pending(let work): await work()
            }
        }
    }
}

/// What a stage says to a request that comes in.
package enum StageEntry {
    case next
    /// This, and nothing of what lies behind the stage.
    case answer(HTTPResponse)
    /// Something has to be waited for; then this, or what lies behind the stage if there is none.
    case pending(@LoopActor () async throws -> HTTPResponse?)
}

/// What a stage says to an answer that goes out.
package enum StageExit {
    case done
    /// Something has to be waited for, which makes the answer.
    case pending(@LoopActor (HTTPResponse) async -> HTTPResponse)
}

/// One stage around every route. Composed once, when the application is made.
///
/// Most stages wait for nothing, and a request that meets only such stages costs no task and no suspension.
@LoopActor
package protocol Middleware<Context>: Sendable {
    associatedtype Context: RequestState

    /// Whether this stage has anything to do around a route; nil for what is no route: an unknown path, a wrong
    /// method, OPTIONS. Asked once for each when the application is made: a stage that declines costs nothing.
    nonisolated func applies(to route: RouteDescription?) -> Bool

    /// Before the handler. An error becomes its answer, which outer stages see as any other.
    func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry

    /// After the handler, or after a stage that lies further in has answered: once for each request that this
    /// stage has let pass.
    func leave(_ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse)
        -> StageExit
}

extension Middleware {
    package nonisolated func applies(to route: RouteDescription?) -> Bool { true }

    package func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry { .next }

    package func leave(
        _ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse
    ) -> StageExit { .done }
}

/// What answers requests, whatever connection they came by.
@LoopActor
package protocol HTTPResponder: AnyObject {
    func answer(_ request: HTTPRequest) -> HTTPAnswer
}

extension HTTPResponder {
    package func respond(to request: HTTPRequest) async -> HTTPResponse {
        await answer(request).value
    }
}
