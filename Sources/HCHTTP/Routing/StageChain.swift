import HCIO

/// The stages around one route, the outermost first, and the route's own code.
@LoopActor
final class StageChain<Context: Sendable> {
    enum Code {
        case immediate(ImmediateHandler<Context>)
        case suspending(Handler<Context>)
    }

    typealias ProblemOf = @LoopActor (any Error, HTTPRequest, Context) -> Problem

    private let stages: [Stage<Context>]
    private let code: Code
    private let problem: ProblemOf

    init(_ stages: [any Middleware<Context>], _ code: Code, _ problem: @escaping ProblemOf) {
        // Boxed once: an existential is copied each time that it is taken out of an array.
        self.stages = stages.map { StageChain.box($0) }
        self.code = code
        self.problem = problem
    }

    private static func box(_ stage: some Middleware<Context>) -> Stage<Context> {
        StageBox(stage)
    }

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
        _ run: Handler<Context>, _ request: HTTPRequest, _ context: Context
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

/// A stage of whatever type.
@LoopActor
private class Stage<Context: Sendable> {
    func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry { .next }

    func leave(
        _ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse
    ) -> StageExit { .done }
}

private final class StageBox<Content: Middleware>: Stage<Content.Context> {
    private let content: Content

    init(_ content: Content) {
        self.content = content
    }

    override func enter(
        _ request: HTTPRequest, _ context: Content.Context
    ) throws -> StageEntry {
        try content.enter(request, context)
    }

    override func leave(
        _ request: HTTPRequest, _ context: Content.Context, _ response: inout HTTPResponse
    ) -> StageExit {
        content.leave(request, context, &response)
    }
}
