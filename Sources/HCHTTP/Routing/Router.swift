/// The table of routes. A value: built at start, then compiled into a trie by `Application`.
package struct Router<Context: RequestState>: Sendable {
    struct Entry: Sendable {
        let route: RouteDescription
        let code: StageChain.Code
    }

    private(set) var entries: [Entry] = []

    package init() {}

    /// - Precondition: no route of the same method and shape, and none of the same name, is there yet.
    package mutating func add(_ route: RouteDescription, _ handler: @escaping Handler<Context>) {
        add(route, StageChain.Code(handler))
    }

    /// Adds a route whose code mostly waits for nothing.
    package mutating func addImmediate(
        _ route: RouteDescription, _ handler: @escaping ImmediateHandler<Context>
    ) {
        add(route, StageChain.Code(handler))
    }

    private mutating func add(_ route: RouteDescription, _ code: StageChain.Code) {
        for entry in entries {
            precondition(entry.route.name != route.name, "two routes are named \(route.name)")
            let same =
                entry.route.method == route.method
                && Router.shape(entry.route) == Router.shape(route)
            precondition(!same, "two routes for \(route.method.name) \(route.pattern)")
        }
        entries.append(Entry(route: route, code: code))
    }

    package mutating func add(contentsOf other: Router<Context>) {
        for entry in other.entries { add(entry.route, entry.code) }
    }

    /// Every route in the order in which it was added: what isolation tests and API documents are made from.
    package var routes: [RouteDescription] { entries.map(\.route) }

    private static func shape(_ route: RouteDescription) -> [String?] {
        route.segments.map { if case .literal(let text) = $0 { text } else { nil } }
    }
}

/// The router's answer for one request; the context is made from it.
package final class RouteMatch: Sendable {
    package enum Outcome: Sendable, Hashable {
        case route
        case notFound
        case methodNotAllowed
        /// OPTIONS for a path that has routes but none for OPTIONS.
        case options
    }

    package let outcome: Outcome
    /// Nil unless `outcome` is `route`.
    package let route: RouteDescription?
    /// The place of the route in `Router.routes`, where stages find at once what they know of it; nil as `route`.
    package let place: Int?
    package let parameters: PathParameters

    init(
        _ outcome: Outcome, _ route: RouteDescription?, at place: Int?,
        _ parameters: PathParameters = .none
    ) {
        self.outcome = outcome
        self.route = route
        self.place = place
        self.parameters = parameters
    }

    /// The same with the values that a path has.
    func with(_ parameters: PathParameters) -> RouteMatch {
        RouteMatch(outcome, route, at: place, parameters)
    }
}

/// The decoded values of a pattern's parameters.
package struct PathParameters: Sendable, Equatable {
    let names: [String]
    let values: [String]

    package init(names: [String], values: [String]) {
        self.names = names
        self.values = values
    }

    package static let none = PathParameters(names: [], values: [])

    /// - Precondition: the route's pattern has that parameter.
    package subscript(_ name: String) -> String {
        guard let value = find(name) else { preconditionFailure("no parameter named \(name)") }
        return value
    }

    package func find(_ name: String) -> String? {
        names.firstIndex(of: name).map { values[$0] }
    }
}
