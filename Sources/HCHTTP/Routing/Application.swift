package import HCIO

/// Routes and middleware, composed: what a server calls for each request.
///
/// The chain of each route is built once. A request costs one walk over its path and one context.
@LoopActor
package final class Application<Context: Sendable>: HTTPResponder {
    private struct Endpoint: Sendable {
        let outcome: RouteMatch.Outcome
        let route: RouteDescription?
        let parameterNames: [String]
        let run: NextHandler<Context>
    }

    package let routes: [RouteDescription]
    private var trie = RouteTrie<Endpoint>()
    private let notFound: Endpoint
    private let serverOptions: Endpoint
    private let makeContext: @LoopActor (HTTPRequest, RouteMatch) -> Context

    /// - Parameters:
    ///   - middleware: the first is the outermost: it sees each request first and its answer last.
    ///   - makeContext: called once per request, with the router's answer.
    ///   - problem: the one table from errors to refusals; it is also the place to log an error that is a bug.
    package init(
        _ router: Router<Context>, middleware: [any Middleware<Context>],
        makeContext: @escaping @LoopActor (HTTPRequest, RouteMatch) -> Context,
        problem: @escaping @LoopActor (any Error, HTTPRequest, Context) -> Problem
    ) {
        func compose(_ handler: @escaping Handler<Context>) -> NextHandler<Context> {
            var chain = Application.catching(handler, problem)
            for stage in middleware.reversed() {
                let next = chain
                chain = Application.catching(
                    { try await stage.handle($0, $1, next: next) }, problem)
            }
            return chain
        }
        func endpoint(
            _ outcome: RouteMatch.Outcome, _ route: RouteDescription?,
            _ handler: @escaping Handler<Context>
        ) -> Endpoint {
            Endpoint(
                outcome: outcome, route: route, parameterNames: route?.parameterNames ?? [],
                run: compose(handler))
        }

        routes = router.routes
        self.makeContext = makeContext
        notFound = endpoint(.notFound, nil) { _, _ in throw Problem.notFound }
        let all = HTTPMethod.allCases.map(\.name).joined(separator: ", ")
        serverOptions = endpoint(.options, nil) { _, _ in Application.allow(all) }

        var methodsByNode: [Int: Set<HTTPMethod>] = [:]
        for entry in router.entries {
            let node = trie.node(for: entry.route.segments)
            let made = endpoint(.route, entry.route, entry.handler)
            trie.set(made, for: entry.route.method, at: node)
            methodsByNode[node, default: []].insert(entry.route.method)
        }
        for (node, methods) in methodsByNode {
            var allowed = methods.union([.options])
            if let get = trie.endpoint(.get, at: node), !methods.contains(.head) {
                trie.set(get, for: .head, at: node)
                allowed.insert(.head)
            }
            let names = HTTPMethod.allCases.filter(allowed.contains).map(\.name)
            let allow = names.joined(separator: ", ")
            for method in HTTPMethod.allCases where trie.endpoint(method, at: node) == nil {
                let answer: Endpoint =
                    method == .options
                    ? endpoint(.options, nil) { _, _ in Application.allow(allow) }
                    : endpoint(.methodNotAllowed, nil) { _, _ in
                        throw Problem.methodNotAllowed(allow: allow)
                    }
                trie.set(answer, for: method, at: node)
            }
        }
    }

    package func respond(to request: HTTPRequest) async -> HTTPResponse {
        let (endpoint, parameters) = find(request)
        let match = RouteMatch(
            outcome: endpoint.outcome, route: endpoint.route, parameters: parameters)
        return await endpoint.run(request, makeContext(request, match))
    }

    private func find(_ request: HTTPRequest) -> (Endpoint, PathParameters) {
        let target = request.target
        if target.isAsterisk { return (serverOptions, .none) }
        guard let found = trie.find(request.method, target) else { return (notFound, .none) }
        let names = found.endpoint.parameterNames
        guard !names.isEmpty else { return (found.endpoint, .none) }
        let values = target.bytes.withUnsafeBytes { bytes in
            found.parameters.map { PercentCoding.decode(bytes.slice($0)) }
        }
        return (found.endpoint, PathParameters(names: names, values: values))
    }

    private static func catching(
        _ handler: @escaping Handler<Context>,
        _ problem: @escaping @LoopActor (any Error, HTTPRequest, Context) -> Problem
    ) -> NextHandler<Context> {
        { request, context in
            do {
                return try await handler(request, context)
            } catch let refusal as Problem {
                return refusal.response(for: request.id)
            } catch {
                return problem(error, request, context).response(for: request.id)
            }
        }
    }

    private static func allow(_ methods: String) -> HTTPResponse {
        HTTPResponse(.noContent, headers: HTTPHeaders([(.allow, methods)]))
    }
}
