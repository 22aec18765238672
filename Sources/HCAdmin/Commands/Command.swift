import HCCore
import HCIO

/// One command of `hc-admin`: what it takes, and what it does.
@LoopActor
protocol Command {
    static var specification: CommandSpecification { get }

    init()

    /// - Throws: `UsageError` for values that cannot be meant, before anything is touched; any other error is
    ///   mapped to an exit status by `Failure`.
    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report
}
