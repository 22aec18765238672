internal import HCIO
package import Testing

/// Runs a test or a suite on the event loop: `@Suite(.onLoop) @LoopActor struct …`.
///
/// A global actor has one executor, so all tests of a process share one loop and interleave on it. They must
/// not share fixtures that change.
package struct OnLoopTrait: SuiteTrait, TestTrait, TestScoping {
    package var isRecursive: Bool { true }

    package func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(Loop.shared) { try await function() }
    }
}

extension Trait where Self == OnLoopTrait {
    /// Starts the loop's thread when the trait is made, for the arguments of a parameterised test in an
    /// isolated suite are evaluated on the loop before any scope is provided.
    package static var onLoop: OnLoopTrait {
        Loop.shared.startThread()
        return OnLoopTrait()
    }
}
