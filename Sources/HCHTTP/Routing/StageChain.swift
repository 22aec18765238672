import HCIO

/// What answers at one place of the table: the stages around one route, the outermost first, and the route's own code.
///
/// It does not know the type of the context: code for any type, which other rooms' types would run, looks up what it has
/// to know about them each time. That every stage and handler here is made for the type of the contexts that come is seen
/// to where the chain is made.
@LoopActor
final class StageChain {
    typealias Context = any RequestState

    enum Code {
        case immediate(@LoopActor (HTTPRequest, Context) throws -> ImmediateAnswer)
        case suspending(@LoopActor (HTTPRequest, Context) async throws -> HTTPResponse)
    }

    typealias ProblemOf = @LoopActor (any Error, HTTPRequest, Context) -> Problem

    fileprivate typealias Wait = @LoopActor () async -> HTTPResponse

    /// Made once; of a path that has parameters all but those.
    private let match: RouteMatch
    private let parameterNames: [String]
    private let stages: [Stage]
    private let first: any Step
    private let problem: ProblemOf

    /// - Parameters:
    ///   - kind: of the contexts that `answer` will be given, always.
    ///   - match: without the values of parameters.
    init<Kind: RequestState>(
        for kind: Kind.Type, _ match: RouteMatch, _ stages: [any Middleware<Kind>], _ code: Code,
        _ problem: @escaping @LoopActor (any Error, HTTPRequest, Kind) -> Problem
    ) {
        // Boxed once: an existential is copied each time that it is taken out of an array.
        var made: [Stage] = []
        var next = code.step
        for (place, stage) in stages.enumerated().reversed() {
            let box = StageChain.box(stage, at: place, before: next)
            made.append(box)
            next = box
        }
        self.match = match
        parameterNames = match.route?.parameterNames ?? []
        self.stages = made.reversed()
        first = next
        self.problem = { problem($0, $1, unsafeDowncast($2, to: Kind.self)) }
    }

    private static func box<Kind>(
        _ stage: some Middleware<Kind>, at place: Int, before next: any Step
    ) -> Stage {
        StageBox(stage, at: place, before: next)
    }

    /// - Parameter segments: of the path, that stand for parameters.
    func match(_ request: HTTPRequest, _ segments: [Range<Int>]) -> RouteMatch {
        // The path's parameters are the route's: OPTIONS and 405 have no route.
        guard !parameterNames.isEmpty else { return match }
        let values = request.target.bytes.withUnsafeBytes { bytes in
            segments.map { PercentCoding.decode(bytes.slice($0)) }
        }
        return match.with(PathParameters(names: parameterNames, values: values))
    }

    func answer(_ request: HTTPRequest, _ context: Context) -> HTTPAnswer {
        var response = StageChain.unanswered
        if let wait = first.pass(request, context, in: self, &response) { return .pending(wait) }
        return .ready(consume response)
    }

    /// Never sent: every way that does not wait sets another.
    private static var unanswered: HTTPResponse { HTTPResponse(.internalServerError) }

    fileprivate func resume(
        _ request: HTTPRequest, _ context: Context,
        _ work: @LoopActor () async throws -> HTTPResponse?, at place: Int
    ) async -> HTTPResponse {
        do {
            if let response = try await work() {
                return await leave(request, context, response, below: place)
            }
        } catch {
            let response = refusal(error, request, context)
            return await leave(request, context, response, below: place)
        }
        var response = StageChain.unanswered
        if let wait = stages[place].next.pass(request, context, in: self, &response) {
            return await wait()
        }
        return await leave(request, context, response, below: place + 1)
    }

    fileprivate func run(
        _ run: @LoopActor (HTTPRequest, Context) async throws -> HTTPResponse,
        _ request: HTTPRequest, _ context: Context
    ) async -> HTTPResponse {
        let response: HTTPResponse
        do {
            response = try await run(request, context)
        } catch {
            response = refusal(error, request, context)
        }
        return await leave(request, context, response, below: stages.count)
    }

    /// Lets an answer out that had to be waited for.
    fileprivate func leave(
        _ request: HTTPRequest, _ context: Context, _ answer: HTTPResponse, below count: Int
    ) async -> HTTPResponse {
        var response = answer
        // Not over a reversed range: in generic code that is made of metadata that is looked up each time.
        var left = count
        while left > 0 {
            left -= 1
            switch stages[left].leave(request, context, &response) {
            case .done: continue
            case .pending(let work): response = await work(response)
            }
        }
        return response
    }

    fileprivate func refusal(
        _ error: any Error, _ request: HTTPRequest, _ context: Context
    ) -> HTTPResponse {
        let refusal = (error as? Problem) ?? problem(error, request, context)
        return refusal.response(for: request.id)
    }
}

extension StageChain.Code {
    init<Kind: RequestState>(_ handler: @escaping ImmediateHandler<Kind>) {
        self = .immediate { try handler($0, unsafeDowncast($1, to: Kind.self)) }
    }

    init<Kind: RequestState>(_ handler: @escaping Handler<Kind>) {
        self = .suspending { try await handler($0, unsafeDowncast($1, to: Kind.self)) }
    }

    /// Behind the last stage.
    @LoopActor fileprivate var step: any Step {
        switch self {
        case .immediate(let run): ImmediateStep(run)
        case .suspending(let run): SuspendingStep(run)
        }
    }
}

/// What a request passes: a stage and all that lies further in, or the route's own code.
///
/// From step to step, as they follow each other, and with the answer in one place: a step that is taken out of an array or
/// of an optional is counted, and so is all that a copy of the answer refers to.
@LoopActor
private protocol Step: AnyObject, Sendable {
    /// Goes on to the route's own code, and back.
    ///
    /// - Parameter response: becomes the answer as this step, and all further in, have left it.
    /// - Returns: nil unless something has to be waited for; then what gives the answer that has left all stages.
    func pass(
        _ request: HTTPRequest, _ context: any RequestState, in chain: StageChain,
        _ response: inout HTTPResponse
    ) -> StageChain.Wait?
}

private final class ImmediateStep: Step {
    private let run: @LoopActor (HTTPRequest, StageChain.Context) throws -> ImmediateAnswer

    init(_ run: @escaping @LoopActor (HTTPRequest, StageChain.Context) throws -> ImmediateAnswer) {
        self.run = run
    }

    func pass(
        _ request: HTTPRequest, _ context: StageChain.Context, in chain: StageChain,
        _ response: inout HTTPResponse
    ) -> StageChain.Wait? {
        do {
            switch try run(request, context) {
            case .ready(let made): response = made
            case .pending(let work):
                return { await chain.run({ _, _ in try await work() }, request, context) }
            }
        } catch {
            response = chain.refusal(error, request, context)
        }
        return nil
    }
}

private final class SuspendingStep: Step {
    private let run: @LoopActor (HTTPRequest, StageChain.Context) async throws -> HTTPResponse

    init(
        _ run: @escaping @LoopActor (HTTPRequest, StageChain.Context) async throws -> HTTPResponse
    ) {
        self.run = run
    }

    func pass(
        _ request: HTTPRequest, _ context: StageChain.Context, in chain: StageChain,
        _ response: inout HTTPResponse
    ) -> StageChain.Wait? {
        { [run] in await chain.run(run, request, context) }
    }
}

/// A stage of whatever type.
@LoopActor
private class Stage: Step {
    let place: Int
    /// What lies further in.
    let next: any Step

    init(at place: Int, before next: any Step) {
        self.place = place
        self.next = next
    }

    final func pass(
        _ request: HTTPRequest, _ context: any RequestState, in chain: StageChain,
        _ response: inout HTTPResponse
    ) -> StageChain.Wait? {
        let place = place
        do {
            switch try enter(request, context) {
            case .next: break
            case .answer(let made):
                response = made
                return nil
            case .pending(let work):
                return { await chain.resume(request, context, work, at: place) }
            }
        } catch {
            response = chain.refusal(error, request, context)
            return nil
        }
        if let wait = next.pass(request, context, in: chain, &response) { return wait }
        switch leave(request, context, &response) {
        case .done: return nil
        case .pending(let work):
            let waiting = response
            return {
                let response = await work(waiting)
                return await chain.leave(request, context, response, below: place)
            }
        }
    }

    func enter(_ request: HTTPRequest, _ context: any RequestState) throws -> StageEntry { .next }

    func leave(
        _ request: HTTPRequest, _ context: any RequestState, _ response: inout HTTPResponse
    ) -> StageExit { .done }
}

private final class StageBox<Content: Middleware>: Stage {
    private let content: Content

    init(_ content: Content, at place: Int, before next: any Step) {
        self.content = content
        super.init(at: place, before: next)
    }

    override func enter(
        _ request: HTTPRequest, _ context: any RequestState
    ) throws -> StageEntry {
        try content.enter(request, unsafeDowncast(context, to: Content.Context.self))
    }

    override func leave(
        _ request: HTTPRequest, _ context: any RequestState, _ response: inout HTTPResponse
    ) -> StageExit {
        content.leave(request, unsafeDowncast(context, to: Content.Context.self), &response)
    }
}
