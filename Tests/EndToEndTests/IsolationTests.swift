import HCClinic
import HCCore
import HCCrypto
import HCHTTP
import HCIO
import HCTesting
import Testing

@testable import HCApp

extension EndToEnd {
    /// Every route of the table, asked across clinics: a new route is tested because it is in the table.
    @Suite(.onLoop) struct IsolationTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        // MARK: The table

        @LoopActor
        private static func table() throws -> [RouteDescription] {
            let tokens = try TokenKeyRing(keys: [
                (id: "table", key: try SecretBytes(randomCount: 32))
            ])
            let services = ClinicServices(
                ClinicDependencies(
                    clocks: .system, blockingPool: BlockingPool(),
                    secrets: try ClinicSecrets(tokens: tokens)))
            return Routes.all(services, clocks: .system).routes
        }

        /// The routes for which somebody must be logged in.
        private static func closedRoutes() async throws -> [RouteDescription] {
            let routes = try await table().filter {
                $0.limitClass != RouteClass.platform.rawValue && $0.access != .open
            }
            #expect(!routes.isEmpty)
            return routes
        }

        @Test("every route has a known class, a known permission, and an audit action if it writes")
        func routeTable() async throws {
            for route in try await IsolationTests.table() {
                #expect(RouteClass(rawValue: route.limitClass) != nil, "\(route.name)")
                if case .permission(let name) = route.access {
                    #expect(Permission(rawValue: name) != nil, "\(route.name): \(name)")
                }
                if route.method != .get {
                    #expect(route.auditAction != nil, "\(route.name)")
                }
            }
        }

        // MARK: Tokens

        @Test("a token of another clinic finds what it would find at a host that does not exist")
        func foreignToken() async throws {
            let sunrise = try platform.login("sunrise")
            for route in try await IsolationTests.closedRoutes() {
                let path = path(route, id: IsolationTests.absentID())
                let foreign = try ask(route, "lakeside", path, token: sunrise)
                let nowhere = try ask(route, "nowhere", path, token: sunrise)
                #expect(foreign.status == 404, "\(route.name): \(foreign.body)")
                #expect(nowhere.status == 404, "\(route.name): \(nowhere.body)")
                #expect(try bare(foreign) == bare(nowhere), "\(route.name)")
                #expect(shape(foreign) == shape(nowhere), "\(route.name)")
            }
            // None of them ended the session, at home least of all.
            let me = try platform.curl("GET", "sunrise", "/v1/auth/me", token: sunrise)
            #expect(me.status == 200)
        }

        @Test("without a token, or with what is none, every closed route answers 401")
        func noToken() async throws {
            for route in try await IsolationTests.closedRoutes() {
                let path = path(route, id: IsolationTests.absentID())
                for token in [nil, "garbage", "a.b.c"] {
                    let answer = try ask(route, "lakeside", path, token: token)
                    #expect(
                        answer.status == 401, "\(route.name), \(token ?? "none"): \(answer.body)")
                }
            }
        }

        // MARK: Identifiers

        @Test("an id of another clinic is answered as an id of nobody, and changes nothing")
        func foreignIDs() async throws {
            let sunrise = try platform.login("sunrise")
            let lakeside = try platform.login("lakeside")
            let own = try Entities(platform, token: sunrise)
            let before = try own.read(platform, token: sunrise)
            for route in try await IsolationTests.closedRoutes()
            where !route.parameterNames.isEmpty {
                let id = try #require(
                    own.id(for: route.pattern), "no entity is known for \(route.pattern)")
                let there = try ask(route, "lakeside", path(route, id: id), token: lakeside)
                let absent = try ask(
                    route, "lakeside", path(route, id: IsolationTests.absentID()), token: lakeside)
                #expect(there.status == 404, "\(route.name): \(there.body)")
                #expect(try bare(there) == bare(absent), "\(route.name)")
                #expect(shape(there) == shape(absent), "\(route.name)")
            }
            #expect(try own.read(platform, token: sunrise) == before)
        }

        @Test("an id of another clinic in a document or a filter is an id of nobody")
        func foreignReferences() throws {
            let sunrise = try platform.login("sunrise")
            let lakeside = try platform.login("lakeside")
            let foreign = try Entities(platform, token: sunrise)
            let local = try Entities(platform, "lakeside", token: lakeside)
            let before = try foreign.read(platform, token: sunrise)
            func book(_ patient: String, _ practitioner: String) -> String {
                """
                {"patientId":"\(patient)","practitionerId":"\(practitioner)",\
                "startsAt":"2032-06-01T10:00:00Z","endsAt":"2032-06-01T10:30:00Z"}
                """
            }
            let posts: [(path: String, real: String, json: (String) -> String)] = [
                ("/v1/appointments", foreign.patient, { book($0, local.practitioner) }),
                ("/v1/appointments", foreign.practitioner, { book(local.patient, $0) }),
                (
                    "/v1/patient-accounts", foreign.patient,
                    {
                        """
                        {"email":"reference@example.org","name":"Reference","patientId":"\($0)",\
                        "password":"\(Entities.password)"}
                        """
                    }
                ),
                (
                    "/v1/practitioners", foreign.staff,
                    { #"{"name":"Reference","accountId":"\#($0)"}"# }
                ),
            ]
            for (path, real, json) in posts {
                let answers = try [real, IsolationTests.absentID()].map {
                    try platform.curl("POST", "lakeside", path, token: lakeside, json: json($0))
                }
                #expect((400..<500).contains(answers[0].status), "\(path): \(answers[0].body)")
                #expect(answers[0].status == answers[1].status, "\(path)")
                #expect(try bare(answers[0]) == bare(answers[1]), "\(path)")
            }
            for filter in [
                "patientId=\(foreign.patient)", "practitionerId=\(foreign.practitioner)",
            ] {
                let path = "/v1/appointments?\(filter)"
                let home = try platform.curl("GET", "sunrise", path, token: sunrise)
                #expect(try home.json["items"]?.asArray?.isEmpty == false, "\(home.body)")
                let away = try platform.curl("GET", "lakeside", path, token: lakeside)
                #expect(away.status == 200)
                #expect(try away.json["items"]?.asArray?.isEmpty == true, "\(away.body)")
            }
            #expect(try foreign.read(platform, token: sunrise) == before)
        }

        @Test("a list of one clinic is not continued at another")
        func foreignCursors() async throws {
            let sunrise = try platform.login("sunrise")
            let lakeside = try platform.login("lakeside")
            // Of everything at least two, so that every list has a second page.
            _ = try Entities(platform, token: sunrise)
            _ = try Entities(platform, token: sunrise)
            var continued: Set<String> = []
            for route in try await IsolationTests.closedRoutes()
            where route.method == .get && route.parameterNames.isEmpty {
                let first = try platform.curl(
                    "GET", "sunrise", "\(route.pattern)?limit=1", token: sunrise)
                guard first.status == 200, let cursor = try first.json["nextCursor"]?.asString
                else { continue }
                continued.insert(route.name)
                let path = "\(route.pattern)?limit=1&cursor=\(cursor)"
                let home = try platform.curl("GET", "sunrise", path, token: sunrise)
                #expect(home.status == 200, "\(route.name): \(home.body)")
                let away = try platform.curl("GET", "lakeside", path, token: lakeside)
                #expect(away.status == 400, "\(route.name): \(away.body)")
            }
            let known: Set = [
                "listAppointments", "listStaff", "listPractitioners", "searchPatients",
            ]
            #expect(continued.isSuperset(of: known), "\(continued)")
        }

        // MARK: Requests

        /// An id in the form of ours that nothing has.
        private static func absentID() -> String {
            var random = SystemRandom()
            return UUID.v7(at: Clocks.system.now(), using: &random).description
        }

        private func path(_ route: RouteDescription, id: String) -> String {
            route.segments.map { segment in
                switch segment {
                case .literal(let text): "/" + text
                case .parameter: "/" + id
                }
            }.joined()
        }

        /// Asks with a document and a version that pass validation.
        private func ask(
            _ route: RouteDescription, _ slug: String, _ path: String, token: String?
        ) throws -> CurlAnswer {
            try platform.curl(
                route.method.name, slug, path, token: token,
                json: route.bodyBytesMax == 0 ? nil : document(for: route),
                headers: route.method == .get ? [] : [#"If-Match: "v1""#])
        }

        private func document(for route: RouteDescription) -> String {
            switch route.name {
            case "changePatient": #"{"phone":"+15550100779"}"#
            case "changeStaff", "changePractitioner", "changeService": #"{"name":"Changed"}"#
            case "reschedule":
                #"{"startsAt":"2032-07-01T10:00:00Z","endsAt":"2032-07-01T10:30:00Z"}"#
            default: "{}"
            }
        }

        /// The body without what tells one request from another.
        private func bare(_ answer: CurlAnswer) throws -> String {
            let id = try #require(
                try answer.json["requestId"]?.asString, "\(answer.status) \(answer.body)")
            return answer.body.split(separator: id, omittingEmptySubsequences: false).joined()
        }

        /// Which header fields there are; a limit or a tag on one of two answers would tell them apart.
        private func shape(_ answer: CurlAnswer) -> [String] {
            answer.headers.map { $0.name.lowercased() }.sorted()
        }
    }
}

/// One of everything that a clinic has, made for one test.
private struct Entities {
    static let password = "Quartz-lantern-58-meadow"

    let slug: String
    let patient: String
    let practitioner: String
    let service: String
    let appointment: String
    let staff: String
    let session: String

    init(_ platform: RunningPlatform, _ slug: String = "sunrise", token: String) throws {
        func make(_ path: String, _ json: String) throws -> String {
            let made = try platform.curl("POST", slug, path, token: token, json: json)
            guard made.status == 201, let id = try made.json["id"]?.asString else {
                throw FixtureError("\(path): \(made.status) \(made.body)")
            }
            return id
        }
        self.slug = slug
        let patient = try make(
            "/v1/patients",
            #"{"givenName":"Test","familyName":"Apart","birthDate":"1980-02-29","sex":"female"}"#)
        let practitioner = try make("/v1/practitioners", #"{"name":"Dr. Apart"}"#)
        service = try make("/v1/services", #"{"name":"Apart","durationMinutes":30}"#)
        appointment = try make(
            "/v1/appointments",
            """
            {"patientId":"\(patient)","practitionerId":"\(practitioner)",\
            "startsAt":"2032-05-03T10:00:00Z","endsAt":"2032-05-03T10:30:00Z","reason":"Apart"}
            """)
        // The patient's id makes the address one that no other test has.
        staff = try make(
            "/v1/staff",
            """
            {"email":"apart-\(patient)@example.org","name":"Apart","roles":["nurse"],\
            "password":"\(Entities.password)"}
            """)
        self.patient = patient
        self.practitioner = practitioner
        let sessions = try platform.curl("GET", slug, "/v1/auth/sessions", token: token)
        let current = try sessions.json["items"]?.asArray?.first { $0["current"] == .bool(true) }
        guard let session = current?["id"]?.asString else {
            throw FixtureError("no session: \(sessions.body)")
        }
        self.session = session
    }

    /// The entity that a route with a parameter is about; nil for a prefix that nobody has named here.
    func id(for pattern: String) -> String? {
        let prefixes = [
            ("/v1/patients/{", patient), ("/v1/practitioners/{", practitioner),
            ("/v1/services/{", service),
            ("/v1/appointments/{", appointment), ("/v1/staff/{", staff),
            ("/v1/auth/sessions/{", session),
        ]
        return prefixes.first { pattern.hasPrefix($0.0) }?.1
    }

    /// What their clinic says of them, versions included.
    func read(_ platform: RunningPlatform, token: String) throws -> [String] {
        let paths = [
            "/v1/patients/\(patient)", "/v1/practitioners/\(practitioner)",
            "/v1/services/\(service)",
            "/v1/appointments/\(appointment)", "/v1/staff/\(staff)",
        ]
        var texts = try paths.map { path in
            let answer = try platform.curl("GET", slug, path, token: token)
            guard answer.status == 200 else {
                throw FixtureError("\(path): \(answer.status) \(answer.body)")
            }
            return "\(answer.header("ETag") ?? "no tag") \(answer.body)"
        }
        let sessions = try platform.curl("GET", slug, "/v1/auth/sessions", token: token)
        let isAlive = try sessions.json["items"]?.asArray?.contains {
            $0["id"]?.asString == session
        }
        texts.append("session \(isAlive == true)")
        return texts
    }
}
