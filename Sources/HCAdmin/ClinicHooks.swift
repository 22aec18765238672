import HCClinic
import HCControl
import HCCore
import HCCrypto
import HCHTTP
import HCIO
import HCTenancy

/// What the clinic's room does for a command: the owner's account, sample data, and a request to the running
/// server as its owner would make it.
@LoopActor
struct ClinicHooks {
    let services: ClinicServices
    private let configuration: PlatformConfiguration
    private let clocks: Clocks
    private let client: HTTPClient

    /// What the server gets to learn of a new clinic and to answer.
    private static let smokePatience = Duration.seconds(10)

    init(_ plane: ControlPlane, _ clocks: Clocks) throws {
        self.clocks = clocks
        configuration = plane.configuration
        let blocking = BlockingPool()
        services = ClinicServices(
            ClinicDependencies(
                clocks: clocks, blockingPool: blocking,
                secrets: try ClinicSecrets(
                    tokens: try TokenKeyRing.load(path: plane.configuration.tokenKeyFile))))
        client = HTTPClient(
            pool: blocking, connectTo: ClinicHooks.authority(of: plane.configuration.publicURL),
            clocks: clocks)
    }

    var hooks: TenantProvisioner.Hooks {
        TenantProvisioner.Hooks(
            populate: { context, request, password, deadline in
                _ = try await OwnerAccount.create(
                    in: context, email: request.ownerEmail, password: password, services: services,
                    requestID: "tenant-create", deadline: deadline)
            },
            smoke: { host, request, password in
                try await smoke(host: host, email: request.ownerEmail, password: password)
            })
    }

    /// Logs in as the owner, through the public listener. The server hears of the clinic by the directory's feed:
    /// until then it answers 404, and is asked again.
    ///
    /// - Returns: what was found, nil when nobody listens at the public URL.
    private func smoke(
        host: String, email: String, password: Sensitive<String>
    ) async throws -> String? {
        var json = JSONWriter()
        json.beginObject()
        json.member("email", email)
        json.member("password", password.reveal())
        json.endObject()
        let scheme = configuration.publicURL.hasPrefix("https:") ? "https" : "http"
        let request = HTTPClient.Request(
            .post, "\(scheme)://\(host)/v1/auth/login",
            headers: HTTPHeaders([(.contentType, "application/json")]), body: json.finish().bytes,
            responseBytesMax: 64 << 10)
        let deadline = Deadline.after(ClinicHooks.smokePatience, from: clocks.monotonic())
        let begun = clocks.monotonic()
        while true {
            let response: HTTPClient.Response
            do {
                response = try await client.send(request, deadline: deadline)
            } catch HTTPClientError.connectFailed {
                return nil
            }
            if response.status == .ok {
                let elapsed = (clocks.monotonic() - begun).inMilliseconds
                return "the owner logged in after \(elapsed) ms"
            }
            guard response.status == .notFound, !deadline.isExpired(at: clocks.monotonic()) else {
                throw ControlError(
                    .failed, code: "smoke-failed",
                    "the server does not serve the clinic: POST /v1/auth/login answered"
                        + " \(response.status.code)",
                    remedy: "See the server's log; hc-admin doctor tells what it can see.")
            }
            try await Loop.shared.sleep(for: .milliseconds(20))
        }
    }

    /// `host:port` of a URL: where to connect, whatever clinic's host the request names.
    private static func authority(of url: String) -> String? {
        guard let start = url.firstRange(of: "://") else { return nil }
        let authority = url[start.upperBound...].prefix { $0 != "/" }
        if authority.contains(":") { return String(authority) }
        return "\(authority):\(url.hasPrefix("https:") ? 443 : 80)"
    }
}
