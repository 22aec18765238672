package import HCIO

/// What runs on a connection, or on a stream of an HTTP/2 connection, that has stopped being HTTP.
package struct HTTPTunnel: Sendable {
    /// Called once, when the head of the answer is on its way.
    ///
    /// The stream is not started: the tunnel starts it, and owns it from then on. Whatever carries it
    /// learns of its end by the stream's `close`. `received` are the bytes that came behind the request.
    package let begin:
        @LoopActor (_ stream: any ByteStream, _ received: [UInt8]) -> any HTTPTunnelConnection

    package init(
        _ begin:
            @escaping @LoopActor (_ stream: any ByteStream, _ received: [UInt8]) ->
            any HTTPTunnelConnection
    ) {
        self.begin = begin
    }
}

/// The far end of a tunnel, as the server sees it.
@LoopActor
package protocol HTTPTunnelConnection: AnyObject {
    /// The server is going away: say good-bye in the tunnel's own way, soon.
    func drain()
    /// The time for good-byes is over.
    func close()
}
