import HCCore
package import HCIO

/// Blocking work of fixtures, off the loop.
@LoopActor package let fixtureThreads = BlockingPool()

@LoopActor package func offLoop<Value: Sendable>(
    _ work: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await fixtureThreads.run(deadline: .after(.seconds(120), from: Loop.now), work)
}
