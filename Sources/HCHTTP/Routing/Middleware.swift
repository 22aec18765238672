package import HCIO

/// A route's own code. `Context` is the application's type of what it knows about one request: made when the
/// request is routed, filled by middleware, typed.
package typealias Handler<Context: Sendable> =
    @LoopActor (HTTPRequest, Context) async throws -> HTTPResponse

/// The rest of the chain. It does not throw: an error has become its answer before an outer stage sees it, so
/// that headers are added to refusals as to any other answer.
package typealias NextHandler<Context: Sendable> =
    @LoopActor (HTTPRequest, Context) async -> HTTPResponse

/// One stage around every route. Composed once, when the application is made.
@LoopActor
package protocol Middleware<Context>: Sendable {
    associatedtype Context: Sendable

    /// Whether this stage has anything to do around a route; nil for what is no route: an unknown path, a wrong
    /// method, OPTIONS. Asked once for each when the application is made: a stage that declines costs nothing.
    nonisolated func applies(to route: RouteDescription?) -> Bool

    func handle(_ request: HTTPRequest, _ context: Context, next: NextHandler<Context>)
        async throws -> HTTPResponse
}

extension Middleware {
    package nonisolated func applies(to route: RouteDescription?) -> Bool { true }
}

/// What answers requests, whatever connection they came by.
@LoopActor
package protocol HTTPResponder: AnyObject {
    func respond(to request: HTTPRequest) async -> HTTPResponse
}
