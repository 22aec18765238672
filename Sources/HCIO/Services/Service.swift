/// Something that lives as long as the program: a server, a pool, a follower of a log.
@LoopActor package protocol Service: AnyObject {
    /// For logs and errors.
    var serviceName: String { get }

    /// What has to be done before the next service may begin: bind a port, read the first map. Cancelled
    /// when the group shuts down meanwhile.
    func prepare() async throws

    /// The service's life. Returns when it has been shut down; returning or throwing earlier is a failure,
    /// and shuts down the whole group.
    func run() async throws

    /// Asks `run()` to come to its end in good order: finish what was accepted, take nothing new. Returns at
    /// once. Who has nothing to finish leaves this out: then the task of `run()` is cancelled.
    func shutDown(_ running: RunningService)
}

extension Service {
    package var serviceName: String { String(describing: type(of: self)) }

    package func prepare() async throws {}

    package func shutDown(_ running: RunningService) { running.cancel() }
}

/// The task in which a service runs.
package struct RunningService: Sendable {
    let task: Task<Void, Never>

    package func cancel() { task.cancel() }
}

/// What a group itself has to complain of. The failures of services are rethrown as they are.
package enum ServiceGroupError: Error, Equatable, CustomStringConvertible {
    case alreadyRun
    /// A service returned though nobody had asked it to.
    case endedEarly(String)
    /// These services went on after the deadline of the shutdown, and after having been cancelled.
    case doNotEnd([String])

    package var description: String {
        switch self {
        case .alreadyRun: "a service group runs once"
        case .endedEarly(let name): "the service \(name) ended by itself"
        case .doNotEnd(let names): "services do not end: \(names.joined(separator: ", "))"
        }
    }
}
