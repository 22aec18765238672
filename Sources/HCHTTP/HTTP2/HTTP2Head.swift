/// A request's head as HTTP/2 brings it, checked: what it says is said once and means one thing.
package struct HTTP2Head: Sendable {
    package let method: HTTPMethod
    package let target: RequestTarget
    package let headers: HTTPHeaders
    package let host: String
    /// From `content-length`; nil if the client does not say.
    package let announcedCount: Int?
    /// Whether no content follows.
    package let isComplete: Bool
    /// Whether it waits for 100 before it sends the content.
    package let expectsContinue: Bool
    package let upgrade: HTTPUpgrade?
}
