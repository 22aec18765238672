package import HCIO

/// Routes and middleware, composed: what a server calls for each request.
///
/// The chain of each route is built once. A request costs one walk over its path and one context.
@LoopActor
package final class Application<Context: RequestState>: HTTPResponder {
    package let routes: [RouteDescription]
    private let trie: RouteTrie
    /// For each node of the trie one for each method; nil where no pattern ends.
    private let endpoints: [StageChain?]
    private let notFound: StageChain
    private let serverOptions: StageChain
    private let makeContext: @LoopActor (HTTPRequest, consuming RouteMatch) -> any RequestState

    /// - Parameters:
    ///   - middleware: the first is the outermost: it sees each request first and its answer last.
    ///   - makeContext: called once per request, with the router's answer.
    ///   - problem: the one table from errors to refusals; it is also the place to log an error that is a bug.
    package init(
        _ router: Router<Context>, middleware: [any Middleware<Context>],
        makeContext: @escaping @LoopActor (HTTPRequest, consuming RouteMatch) -> Context,
        problem: @escaping @LoopActor (any Error, HTTPRequest, Context) -> Problem
    ) {
        func compose(
            _ outcome: RouteMatch.Outcome, _ route: RouteDescription?, at place: Int? = nil,
            _ code: StageChain.Code
        ) -> StageChain {
            StageChain(
                for: Context.self, RouteMatch(outcome, route, at: place),
                middleware.filter { $0.applies(to: route) }, code, problem)
        }

        routes = router.routes
        self.makeContext = makeContext
        notFound = compose(.notFound, nil, .immediate { _, _ in throw Problem.notFound })
        let all = HTTPMethod.allCases.map(\.name).joined(separator: ", ")
        serverOptions = compose(
            .options, nil, .immediate { _, _ in .ready(Application.allow(all)) })

        var trie = RouteTrie()
        let nodes = router.entries.map { trie.insert($0.route.segments) }
        let methodCount = HTTPMethod.count
        var table: [StageChain?] = Array(
            repeating: nil, count: trie.nodeCount * methodCount)
        for (place, (entry, node)) in zip(router.entries, nodes).enumerated() {
            let made = compose(.route, entry.route, at: place, entry.code)
            table[node * methodCount + Int(entry.route.method.rawValue)] = made
        }
        for node in Set(nodes) {
            let first = node * methodCount
            let get = table[first + Int(HTTPMethod.get.rawValue)]
            if table[first + Int(HTTPMethod.head.rawValue)] == nil {
                table[first + Int(HTTPMethod.head.rawValue)] = get
            }
            let methods = HTTPMethod.allCases.filter { method in
                method == .options || table[first + Int(method.rawValue)] != nil
            }
            let allow = methods.map(\.name).joined(separator: ", ")
            let refusal = compose(
                .methodNotAllowed, nil,
                .immediate { _, _ in throw Problem.methodNotAllowed(allow: allow) })
            let options = compose(
                .options, nil, .immediate { _, _ in .ready(Application.allow(allow)) })
            for method in HTTPMethod.allCases {
                let place = first + Int(method.rawValue)
                if table[place] == nil { table[place] = method == .options ? options : refusal }
            }
        }
        self.trie = trie
        endpoints = table
    }

    package func answer(_ request: HTTPRequest) -> HTTPAnswer {
        var segments: [Range<Int>] = []
        let chain = find(request, &segments)
        let context = makeContext(request, chain.match(request, segments))
        return chain.answer(request, context)
    }

    /// - Parameter segments: becomes the raw segments that stand for parameters.
    private func find(_ request: HTTPRequest, _ segments: inout [Range<Int>]) -> StageChain {
        if request.target.isAsterisk { return serverOptions }
        guard let node = trie.find(request.target, parameters: &segments) else { return notFound }
        return endpoints[node * HTTPMethod.count + Int(request.method.rawValue)] ?? notFound
    }

    private static func allow(_ methods: String) -> HTTPResponse {
        HTTPResponse(.noContent, headers: HTTPHeaders([(.allow, methods)]))
    }
}
