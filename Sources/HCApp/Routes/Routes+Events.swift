import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCTenancy

extension Routes {
    /// What a socket of the feed allows. A socket that asks nothing of its client but to listen is asked by a ping
    /// whether somebody is there.
    static var eventSockets: WebSocketConfiguration {
        var configuration = WebSocketConfiguration()
        configuration.limits = WebSocketLimits(messageBytesMax: EventSocketLimits.messageBytesMax)
        configuration.inboxBytesMax = EventSocketLimits.messageBytesMax * 2
        configuration.socketsMax = EventSocketLimits.socketsMax
        configuration.pingInterval = .seconds(25)
        return configuration
    }

    static func addEvents(
        to table: inout RouteTable, _ services: ClinicServices, _ sockets: WebSocketEndpoint
    ) {
        let events = services.events
        table.add(
            .post, "/v1/events/tickets", "issueEventTicket", permission: nil, class: .read,
            audit: "issue-ticket", "A ticket that opens one socket for events, within 30 seconds."
        ) { request in
            var response = HTTPResponse.value(
                try await events.issueTicket(
                    request.actor, in: request.tenant, deadline: request.deadline),
                status: .created)
            response.headers.append(.cacheControl, "no-store" as StaticString)
            return response
        }
        table.addOpen(
            .get, "/v1/events/ws", "followEvents", class: .ticket,
            "The clinic's events over a WebSocket; the ticket is the authentication."
        ) { request, tenant in
            // What is no WebSocket at all costs nobody a ticket.
            if request.upgrade == nil { return try sockets.accept(request) { _ in } }
            try requireOrigin(of: request, tenant)
            let query = request.query
            try query.allow(["ticket"])
            guard let ticket = try query.single("ticket") else {
                throw ClinicError(.invalidTicket)
            }
            let admission = try await events.redeem(
                ticket, in: tenant, requestID: request.id, deadline: request.deadline)
            return try sockets.accept(request, subprotocols: [EventService.subprotocol]) { socket in
                try await serve(socket, admission, events)
            }
        }
    }

    /// A page of an origin that the clinic does not know opens no socket here (RFC 6455 10.2); without a list that is
    /// every page but those of its own host. Programs send no origin.
    private static func requireOrigin(
        of request: HTTPRequest, _ tenant: TenantContext
    ) throws(Problem) {
        let allowed = tenant.tenant.origins
        guard request.headers.contains(.origin) else { return }
        guard request.headers.count(of: .origin) == 1, let origin = request.headers[.origin],
            allowed.contains(origin) || isOwn(origin, request)
        else { throw .originNotAllowed }
    }

    /// A page that this host serves itself.
    private static func isOwn(_ origin: String, _ request: HTTPRequest) -> Bool {
        guard let origin = WebOrigin(field: origin) else { return false }
        let authority = origin.text.dropFirst(origin.isSecure ? 8 : 7)
        return authority.prefix { $0 != ":" } == request.host
    }

    private static func serve(
        _ socket: WebSocket, _ admission: EventAdmission, _ events: EventService
    ) async throws {
        let session = events.begin(admission, on: EventCarrier(socket))
        defer { session.ended() }
        while let message = try await socket.receive() {
            guard message.kind == .text else { return socket.close(.unsupportedData) }
            await session.handle(message.bytes)
        }
    }
}

/// A WebSocket as the clinic's events see it.
@LoopActor
private final class EventCarrier: EventSocket {
    private let socket: WebSocket

    init(_ socket: WebSocket) {
        self.socket = socket
    }

    func send(_ text: ByteBuffer) {
        socket.push(WebSocketMessage(.text, validated: text.bytes))
    }

    func close(_ reason: EventCloseReason) {
        guard let code = WebSocketCloseCode(reason.rawValue) else {
            preconditionFailure("\(reason) is no code that may be sent")
        }
        socket.close(code, reason: "\(reason.text)")
    }
}
