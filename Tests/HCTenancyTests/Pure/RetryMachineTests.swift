import HCCore
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Trying again")
struct RetryMachineTests {
    private var random = SeededRandom(seed: 1)

    @Test("a clinic that is not there is looked up again, and tried where it is")
    mutating func moved() {
        var machine = RetryMachine(isRepeatable: false)
        expectEqual(machine.failed(.moved, using: &random), .refreshMap)
        expectEqual(machine.mapRefreshed(isElsewhere: true), .retry(after: .zero))
    }

    @Test("when the newest map says the same, the refusal is final")
    mutating func movedNowhere() {
        var machine = RetryMachine(isRepeatable: false)
        expectEqual(machine.failed(.moved, using: &random), .refreshMap)
        expectEqual(
            machine.mapRefreshed(isElsewhere: false), .fail(.moving(retryAfter: .seconds(1))))
    }

    @Test("a clinic that moves again and again is not followed for ever")
    mutating func movesAreBounded() {
        var machine = RetryMachine(isRepeatable: true)
        for _ in 0..<3 { expectEqual(machine.failed(.moved, using: &random), .refreshMap) }
        expectEqual(machine.failed(.moved, using: &random), .fail(.moving(retryAfter: .seconds(1))))
    }

    @Test("a drained clinic is waited for, longer each time, up to a bound")
    mutating func draining() {
        var machine = RetryMachine(isRepeatable: false)
        var waits: [Duration] = []
        for _ in 0..<8 {
            guard case .park(let wait) = machine.failed(.draining, using: &random) else {
                Issue.record("not parked")
                return
            }
            waits.append(wait)
        }
        #expect(waits.prefix(3) == [.milliseconds(10), .milliseconds(20), .milliseconds(40)])
        #expect(waits.last == .milliseconds(250))
    }

    @Test("a write whose outcome is unknown is never tried again")
    mutating func unknownOutcome() {
        var write = RetryMachine(isRepeatable: false)
        expectEqual(write.failed(.commitUnknown, using: &random), .fail(.outcomeUnknown))
    }

    @Test("a read, and audit rows, are")
    mutating func repeatable() {
        var read = RetryMachine(isRepeatable: true)
        expectEqual(read.failed(.commitUnknown, using: &random), .retry(after: .zero))
    }

    @Test("a connection that was lost before the commit is replaced, a few times")
    mutating func lostConnections() {
        var machine = RetryMachine(isRepeatable: false)
        expectEqual(machine.failed(.connectionLost, using: &random), .retry(after: .zero))
        expectEqual(machine.failed(.connectionLost, using: &random), .retry(after: .zero))
        expectEqual(
            machine.failed(.connectionLost, using: &random),
            .fail(.shardUnavailable(retryAfter: .seconds(1))))
    }

    @Test("a conflict is tried again after a short wait, and given to the caller in the end")
    mutating func conflicts() {
        var machine = RetryMachine(isRepeatable: false)
        for round in 1...4 {
            guard case .retry(let wait) = machine.failed(.conflict, using: &random) else {
                Issue.record("not tried again")
                return
            }
            #expect(wait <= .milliseconds(1 << round))
        }
        expectEqual(machine.failed(.conflict, using: &random), .rethrow)
    }

    @Test(
        "refusals that waiting does not help are told as they are",
        arguments: [
            (RetryMachine.Failure.suspended, TenancyError.suspended), (.readOnly, .readOnly),
            (.deadlineExceeded, .deadlineExceeded), (.cancelled, .cancelled),
            (.unreachable(retryAfter: .seconds(3)), .shardUnavailable(retryAfter: .seconds(3))),
            (.poolExhausted(retryAfter: .seconds(1)), .overloaded(retryAfter: .seconds(1))),
        ])
    mutating func refusals(failure: RetryMachine.Failure, error: TenancyError) {
        var machine = RetryMachine(isRepeatable: true)
        expectEqual(machine.failed(failure, using: &random), .fail(error))
    }

    @Test(
        "errors of the server are told apart",
        arguments: [
            (SQLState.tenantMoved, RetryMachine.Failure.moved), (.tenantDraining, .draining),
            (.tenantSuspended, .suspended), (.tenantReadOnly, .readOnly),
            (.serializationFailure, .conflict), (.deadlockDetected, .conflict),
            (.uniqueViolation, .other), (.exclusionViolation, .other),
            (.insufficientPrivilege, .other), (.cannotConnectNow, .connectionLost),
        ])
    func serverErrors(state: SQLState, failure: RetryMachine.Failure) {
        let error = PostgresError(.server(PostgresError.ServerError(sqlstate: state, message: "")))
        #expect(RetryMachine.Failure(error) == failure)
    }
}
