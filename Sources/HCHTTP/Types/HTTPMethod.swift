/// The methods this server implements. Names are case-sensitive (RFC 9110 9.1); any other method is
/// answered with 501, CONNECT and TRACE included: there is nothing here to tunnel to or to echo.
package enum HTTPMethod: UInt8, Sendable, Hashable, CaseIterable {
    case get
    case head
    case post
    case put
    case patch
    case delete
    case options

    static let count = allCases.count

    package var name: String {
        switch self {
        case .get: "GET"
        case .head: "HEAD"
        case .post: "POST"
        case .put: "PUT"
        case .patch: "PATCH"
        case .delete: "DELETE"
        case .options: "OPTIONS"
        }
    }

    /// RFC 9110 9.2.2: repeating the request has the effect of making it once.
    package var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options: true
        case .post, .patch: false
        }
    }

    /// RFC 9110 9.2.1: the client asks for no change of state.
    package var isSafe: Bool {
        switch self {
        case .get, .head, .options: true
        case .post, .put, .patch, .delete: false
        }
    }

    init?(_ bytes: UnsafeRawBufferPointer) {
        switch bytes.count {
        case 3:
            if bytes.isEqual(to: "GET") {
                self = .get
            } else if bytes.isEqual(to: "PUT") {
                self = .put
            } else {
                return nil
            }
        case 4:
            if bytes.isEqual(to: "POST") {
                self = .post
            } else if bytes.isEqual(to: "HEAD") {
                self = .head
            } else {
                return nil
            }
        case 5:
            guard bytes.isEqual(to: "PATCH") else { return nil }
            self = .patch
        case 6:
            guard bytes.isEqual(to: "DELETE") else { return nil }
            self = .delete
        case 7:
            guard bytes.isEqual(to: "OPTIONS") else { return nil }
            self = .options
        default: return nil
        }
    }

    package init?(_ name: String) {
        guard let method = HTTPMethod.allCases.first(where: { $0.name == name }) else { return nil }
        self = method
    }
}

package enum HTTPVersion: UInt8, Sendable, Hashable {
    case http10
    case http11
    case http2

    package var text: String {
        switch self {
        case .http10: "HTTP/1.0"
        case .http11: "HTTP/1.1"
        case .http2: "HTTP/2"
        }
    }
}
