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
    private let publicURL: OutboundURL

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
        do {
            publicURL = try OutboundURL(configuration.publicURL)
        } catch {
            throw ControlError(
                .failed, code: "public-url",
                "the public URL is none that can be requested: \(error.rawValue)",
                remedy: "Write publicURL as http://host:port or https://host.")
        }
        client = ClinicHooks.client(publicURL, blocking, clocks)
    }

    /// Goes to the public listener under the name of any clinic. It is asked once: who asks again is `smoke`.
    private static func client(
        _ publicURL: OutboundURL, _ pool: BlockingPool, _ clocks: Clocks
    ) -> HTTPClient {
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry = .never
        configuration.breaker = nil
        let lookup: NameLookup
        switch publicURL.host {
        case .address(let address): lookup = .fixed([address])
        case .name(let name):
            lookup = NameLookup { _, deadline in
                try await SocketAddress.resolve(host: name, port: 0, deadline: deadline, on: pool)
            }
        }
        return HTTPClient(configuration, lookup: lookup, clocks: clocks)
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
        let origin = "\(publicURL.scheme.rawValue)://\(host):\(publicURL.port)"
        let request = OutboundRequest(
            OutboundTarget("smoke"), .post, "\(origin)/v1/auth/login",
            headers: HTTPHeaders([(.contentType, "application/json")]),
            content: .bytes(json.finish().bytes), responseBytesMax: 64 << 10)
        let deadline = Deadline.after(ClinicHooks.smokePatience, from: clocks.monotonic())
        let begun = clocks.monotonic()
        while true {
            let response: OutboundResponse
            do throws(HTTPClientError) {
                response = try await client.send(request, deadline: deadline)
            } catch {
                guard error == .connect else { throw error }
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
}
