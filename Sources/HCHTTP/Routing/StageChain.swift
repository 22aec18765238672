import HCIO

/// The stages around one route, the outermost first, and the route's own code.
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

    private let stages: [Stage]
    private let code: Code
    private let problem: ProblemOf

    /// - Parameters:
    ///   - kind: of the contexts that `answer` will be given, always.
    init<Kind: RequestState>(
        for kind: Kind.Type, _ stages: [any Middleware<Kind>], _ code: Code,
        _ problem: @escaping @LoopActor (any Error, HTTPRequest, Kind) -> Problem
    ) {
        // Boxed once: an existential is copied each time that it is taken out of an array.
        self.stages = stages.map { StageChain.box($0) }
        self.code = code
        self.problem = { problem($0, $1, unsafeDowncast($2, to: Kind.self)) }
    }

    private static func box<Kind>(_ stage: some Middleware<Kind>) -> Stage { StageBox(stage) }

    func answer(_ request: HTTPRequest, _ context: Context) -> HTTPAnswer {
        enter(request, context, from: 0)
    }

    private func enter(
        _ request: HTTPRequest, _ context: Context, from first: Int
    ) -> HTTPAnswer {
        for index in first..<stages.count {
            do {
                switch try stages[index].enter(request, context) {
                case .next: continue
                case .answer(let response): return leave(request, context, response, below: index)
                case .pending(let work):
                    return .pending { await self.resume(request, context, work, at: index) }
                }
            } catch {
                return leave(
                    request, context, refusal(error, request, context), below: index)
            }
        }
        switch code {
        case .immediate(let run):
            let response: HTTPResponse
            do {
                switch try run(request, context) {
                case .ready(let made): response = made
                case .pending(let work):
                    return .pending {
                        await self.run({ _, _ in try await work() }, request, context)
                    }
                }
            } catch {
                response = refusal(error, request, context)
            }
            return leave(request, context, response, below: stages.count)
        case .suspending(let run):
            return .pending { await self.run(run, request, context) }
        }
    }

    private func resume(
        _ request: HTTPRequest, _ context: Context,
        _ work: @LoopActor () async throws -> HTTPResponse?, at index: Int
    ) async -> HTTPResponse {
        do {
            if let response = try await work() {
                return await leave(request, context, response, below: index).value
            }
        } catch {
            let response = refusal(error, request, context)
            return await leave(request, context, response, below: index).value
        }
        return await enter(request, context, from: index + 1).value
    }

    private func run(
        _ run: @LoopActor (HTTPRequest, Context) async throws -> HTTPResponse,
        _ request: HTTPRequest, _ context: Context
    ) async -> HTTPResponse {
        let response: HTTPResponse
        do {
            response = try await run(request, context)
        } catch {
            response = refusal(error, request, context)
        }
        return await leave(request, context, response, below: stages.count).value
    }

    private func leave(
        _ request: HTTPRequest, _ context: Context, _ answer: consuming HTTPResponse,
        below count: Int
    ) -> HTTPAnswer {
        var response = answer
        // Not over a reversed range: in generic code that is made of metadata that is looked up each time.
        var left = count
        while left > 0 {
            left -= 1
            switch stages[left].leave(request, context, &response) {
            case .done: continue
            case .pending(let work):
                let (waiting, index) = (response, left)
                return .pending {
                    let response = await work(waiting)
                    return await self.leave(request, context, response, below: index).value
                }
            }
        }
        return .ready(response)
    }

    private func refusal(
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
}

/// A stage of whatever type.
@LoopActor
private class Stage {
    func enter(_ request: HTTPRequest, _ context: any RequestState) throws -> StageEntry { .next }

    func leave(
        _ request: HTTPRequest, _ context: any RequestState, _ response: inout HTTPResponse
    ) -> StageExit { .done }
}

private final class StageBox<Content: Middleware>: Stage {
    private let content: Content

    init(_ content: Content) {
        self.content = content
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
