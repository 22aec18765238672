package import HCCore

/// One field of a request that was not as it must be.
package struct FieldProblem: Sendable, Equatable {
    /// The field as the client wrote it: `birthDate`, `address.city`, `participants[2]`.
    package let field: String
    /// Stable, for programs: `required`, `format`, `too-long`.
    package let code: String
    /// For people, in English.
    package let message: String

    package init(_ field: String, code: String, _ message: String) {
        self.field = field
        self.code = code
        self.message = message
    }
}

/// A refusal as the client sees it (RFC 9457). Thrown by routes and middleware.
///
/// `code` is what programs decide by: it never changes its meaning. Nothing in it may tell what the client is
/// not allowed to know.
package struct Problem: Error, Sendable {
    package var status: HTTPStatus
    package var code: String
    package var title: String
    package var detail: String?
    package var errors: [FieldProblem]
    /// Further members of the document (RFC 9457 3.2), such as what a transition would be allowed to.
    package var extensions = JSONObject()
    /// Further header fields of the answer: Retry-After, WWW-Authenticate, Allow.
    package var headers: HTTPHeaders

    package init(
        _ status: HTTPStatus, code: String, title: String, detail: String? = nil,
        errors: [FieldProblem] = [], headers: HTTPHeaders = HTTPHeaders()
    ) {
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers
    }

    /// The same for an unknown host, an unknown path and an unknown id: byte-identical but for the request id.
    package static let notFound = Problem(.notFound, code: "not-found", title: "Not Found")

    package static let internalError = Problem(
        .internalServerError, code: "internal-error", title: "Internal Server Error")

    package static func methodNotAllowed(allow: String) -> Problem {
        Problem(
            .methodNotAllowed, code: "method-not-allowed", title: "Method Not Allowed",
            headers: HTTPHeaders([(.allow, allow)]))
    }

    /// `If-Match` names no form that is here (RFC 9110 13.1.1).
    static let preconditionFailed = Problem(
        .preconditionFailed, code: "precondition-failed", title: "Precondition Failed",
        detail: "It has changed since. Read it again, then try again.")

    /// `Range` names nothing of a content of `count` bytes (RFC 9110 15.5.17).
    static func rangeNotSatisfiable(count: Int) -> Problem {
        Problem(
            .rangeNotSatisfiable, code: "range-not-satisfiable", title: "Range Not Satisfiable",
            headers: HTTPHeaders([(.contentRange, "bytes */\(count)")]))
    }

    package static func contentTooLarge(max: Int) -> Problem {
        Problem(
            .contentTooLarge, code: "content-too-large", title: "Content Too Large",
            detail: "The content may have at most \(max) bytes.")
    }

    /// 400 by default: a parameter or a document that cannot be understood; 422: understood, and not acceptable.
    package static func invalid(_ errors: [FieldProblem], status: HTTPStatus = .badRequest)
        -> Problem
    {
        Problem(
            status, code: "invalid-request", title: "Invalid Request",
            detail: "Some fields are missing or not as they must be.", errors: errors)
    }

    /// The answer. The request id comes last in the document, so that two documents of the same problem are
    /// equal up to it.
    package func response(for id: RequestID?) -> HTTPResponse {
        var json = JSONWriter()
        json.beginObject()
        json.key("type")
        json.string("urn:hc:problem:" + code)
        json.key("title")
        json.string(title)
        json.key("status")
        json.integer(Int64(status.code))
        if let detail {
            json.key("detail")
            json.string(detail)
        }
        json.key("code")
        json.string(code)
        if !errors.isEmpty {
            json.key("errors")
            json.beginArray()
            for error in errors {
                json.beginObject()
                json.key("field")
                json.string(error.field)
                json.key("code")
                json.string(error.code)
                json.key("message")
                json.string(error.message)
                json.endObject()
            }
            json.endArray()
        }
        for member in extensions.members {
            json.key(member.name)
            json.value(member.value)
        }
        if let id {
            json.key("requestId")
            json.string(id.description)
        }
        json.endObject()
        var response = HTTPResponse(status, body: .buffer(json.buffer))
        response.headers.append(.contentType, "application/problem+json" as StaticString)
        response.headers.append(contentsOf: headers)
        response.problemCode = code
        return response
    }
}
