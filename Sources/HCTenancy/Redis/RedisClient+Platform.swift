package import HCCore
package import HCIO
package import HCRedis

extension RedisClient {
    /// A client of the platform's Redis, not started yet.
    ///
    /// - Parameter name: what `CLIENT LIST` shows; without blanks.
    /// - Throws: `Files.FileError` for a password file that cannot be read, `ConfigurationError` for an address
    ///   that is none.
    @LoopActor
    package convenience init(
        _ redis: PlatformConfiguration.Redis, name: String, blocking: BlockingPool, logger: Logger,
        metrics: MetricsRegistry = .unread
    ) throws {
        let connector: RedisConnector
        switch redis.address {
        case .socket(let path):
            guard let address = SocketAddress(path) else {
                throw ConfigurationError(
                    source: "redis",
                    problems: [
                        ConfigurationProblem(
                            path: "redis.socket", problem: "'\(path)' is no path of a socket",
                            remedy: "write an absolute path of at most 107 bytes")
                    ])
            }
            connector = RedisConnectors.plain(address)
        case .host(let host, let port):
            connector = RedisConnectors.plain(host: host, port: UInt16(port), resolver: blocking)
        }
        var configuration = RedisConfiguration()
        configuration.clientName = name
        if let file = redis.passwordFile {
            let bytes = try Files.read(file, bytesMax: 4096)
            let text = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isWhitespace)
            configuration.password = Sensitive(text.joined())
        }
        self.init(
            configuration: configuration, connector: connector, logger: logger, metrics: metrics)
    }

    /// Names the run of Redis at the other end: it changes when Redis restarts or another takes over.
    func runID(deadline: Deadline) async throws(RedisError) -> String {
        let text = try await send(["INFO", "server"], deadline: deadline).asString ?? ""
        let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("run_id:") }
        guard let line else { throw .unexpectedReply }
        return String(line.dropFirst("run_id:".count))
    }
}
