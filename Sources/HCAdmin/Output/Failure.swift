import HCControl
import HCCore

/// How an error ends a command: its exit status, and what it says to machines and people.
struct Failure {
    let status: ExitStatus
    let code: String
    let message: String
    let remedy: String?

    init(_ error: any Error) {
        switch error {
        case let error as UsageError:
            status = .usage
            code = "usage"
            message = error.description
            remedy = nil
        case let error as ControlError:
            status =
                switch error.kind {
                case .invalid: .usage
                case .refused: .refused
                case .notFound: .notFound
                case .conflict: .conflict
                case .failed: .failed
                }
            code = error.code
            message = error.message + (error.cause.map { ": \($0)" } ?? "")
            remedy = error.remedy
        default:
            status = .failed
            code = "failed"
            message = "\(error)"
            remedy = nil
        }
    }

    var json: JSONValue {
        [
            "error": [
                "code": .string(code),
                "status": .string(status.name),
                "message": .string(message),
                "remedy": remedy.map { .string($0) } ?? .null,
            ]
        ]
    }

    var text: String {
        "hc-admin: \(message)" + (remedy.map { "\n\($0)" } ?? "")
    }
}
