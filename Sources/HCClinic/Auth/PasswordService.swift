import HCCore
import HCCrypto
import HCIO

/// Makes and looks at password hashes, in the blocking pool: each takes tens of milliseconds and 32 MiB.
@LoopActor
final class PasswordService {
    private let pool: BlockingPool
    private let parameters: PasswordHash.Parameters
    /// Looked at where there is no account, so that both take the same time.
    private var dummy: String?

    nonisolated init(_ dependencies: ClinicDependencies) {
        pool = dependencies.blockingPool
        parameters = dependencies.passwordHashing
    }

    func hash(_ password: Sensitive<String>, deadline: Deadline) async throws -> String {
        let parameters = parameters
        return try await run(deadline) {
            try PasswordHash(of: password, parameters: parameters).encoded
        }
    }

    enum Verdict: Sendable {
        case wrong
        /// With a new hash if the stored one was made with other parameters than now.
        case right(rehashed: String?)
    }

    /// - Parameter encoded: nil where there is no account: takes as long, and is wrong.
    func verify(
        _ password: Sensitive<String>, against encoded: String?, deadline: Deadline
    ) async throws -> Verdict {
        let parameters = parameters
        let stored: String
        if let encoded {
            stored = encoded
        } else if let dummy {
            stored = dummy
        } else {
            let made = try await hash(Sensitive("nobody has this password"), deadline: deadline)
            dummy = made
            stored = made
        }
        let exists = encoded != nil
        return try await run(deadline) {
            let hash = try PasswordHash(parsing: stored)
            guard try hash.matches(password), exists else { return .wrong }
            guard hash.parameters != parameters else { return .right(rehashed: nil) }
            return .right(
                rehashed: try PasswordHash(of: password, parameters: parameters).encoded)
        }
    }

    private func run<Value: Sendable>(
        _ deadline: Deadline, _ work: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        do {
            return try await pool.run(deadline: deadline, work)
        } catch is BlockingPoolError {
            throw ClinicError(.busy, retryAfter: .seconds(1))
        }
    }
}
