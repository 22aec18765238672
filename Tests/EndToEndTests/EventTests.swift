import CLinux
import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// Sockets that follow a clinic, over real programs: what one worker commits all of them tell.
    @Suite struct EventTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        // MARK: What the tests do

        private func ticket(_ slug: String, _ token: String) throws -> String {
            let answer = try platform.curl("POST", slug, "/v1/events/tickets", token: token)
            guard answer.status == 201, let ticket = try answer.json["ticket"]?.asString else {
                throw FixtureError("no ticket: \(answer.status) \(answer.body)")
            }
            #expect(try answer.json["expiresIn"]?.asInteger == 30)
            return ticket
        }

        private func open(
            _ ticket: String, _ slug: String = "sunrise", fields: [String] = []
        ) throws -> WebSocketClient {
            try WebSocketClient(
                port: platform.port, host: "\(slug).localhost",
                path: "/v1/events/ws?ticket=\(ticket)",
                fields: ["Sec-WebSocket-Protocol: hc.events.v1"] + fields)
        }

        private func follow(
            _ topics: [String], after: Int64? = nil, token: String
        ) throws -> WebSocketClient {
            let socket = try open(try ticket("sunrise", token))
            #expect(socket.subprotocol == "hc.events.v1")
            #expect(try socket.json()["type"]?.asString == "welcome")
            try socket.send([
                "type": "subscribe", "id": "1", "topics": .array(topics.map { .string($0) }),
                "after": after.map { .integer($0) } ?? .null,
            ])
            let begun = try socket.json()
            #expect(begun["type"]?.asString == "subscribed", "\(begun.text)")
            return socket
        }

        /// A patient and a practitioner of a test's own.
        private struct Pair {
            let patient: String
            let practitioner: String

            init(_ platform: RunningPlatform, _ token: String) throws {
                func make(_ path: String, _ json: String) throws -> String {
                    let made = try platform.curl("POST", "sunrise", path, token: token, json: json)
                    guard let id = try made.json["id"]?.asString else {
                        throw FixtureError("\(path): \(made.status) \(made.body)")
                    }
                    return id
                }
                patient = try make(
                    "/v1/patients",
                    #"{"givenName":"Test","familyName":"Feed","birthDate":"1980-02-29","sex":"female"}"#
                )
                practitioner = try make("/v1/practitioners", #"{"name":"Dr. Feed"}"#)
            }

            func booking(_ hour: Int) -> String {
                let day = 1 + hour / 24
                let time =
                    "2033-03-\(day < 10 ? "0" : "")\(day)T\(hour % 24 < 10 ? "0" : "")\(hour % 24)"
                return """
                    {"patientId":"\(patient)","practitionerId":"\(practitioner)",\
                    "startsAt":"\(time):00:00Z","endsAt":"\(time):30:00Z"}
                    """
            }
        }

        private func book(_ pair: Pair, _ hour: Int, token: String) throws -> String {
            let made = try platform.curl(
                "POST", "sunrise", "/v1/appointments", token: token, json: pair.booking(hour),
                headers: ["Idempotency-Key: feed-\(pair.patient)-\(hour)"])
            guard let id = try made.json["id"]?.asString else {
                throw FixtureError("booking: \(made.status) \(made.body)")
            }
            return id
        }

        /// The bodies without what tells one request from another.
        private func bare(_ body: String) throws -> String {
            let id = try #require(
                try JSONReader.parse(Array(body.utf8))["requestId"]?.asString, "\(body)")
            return body.split(separator: id, omittingEmptySubsequences: false).joined()
        }

        // MARK: Following

        @Test("what is booked through any worker is heard at every socket, once and in order")
        func acrossWorkers() throws {
            let token = try platform.login("sunrise")
            let pair = try Pair(platform, token)
            // Connections are spread over the workers by the kernel: of so many some are with each.
            let sockets = try (0..<8).map { _ in
                try follow(["calendar:\(pair.practitioner)"], token: token)
            }
            let booked = try (0..<12).map { try book(pair, $0, token: token) }
            for socket in sockets {
                var heard: [String] = []
                var places: [Int64] = []
                for _ in booked {
                    let event = try socket.json()
                    #expect(event["event"]?.asString == "appointment.booked")
                    heard.append(event["id"]?.asString ?? "")
                    places.append(event["sequence"]?.asInteger ?? 0)
                }
                // Two workers publish: their events may change places, but for everybody alike.
                #expect(Set(heard) == Set(booked))
                #expect(places == places.sorted() && Set(places).count == places.count)
            }
            let metrics = try Subprocess.run(
                "/usr/bin/curl", ["-sS", "http://127.0.0.1:\(platform.operatorPort)/metrics"])
            #expect(metrics.contains("hc_events_sockets"))
            #expect(metrics.contains("hc_events_published_total"))
            #expect(metrics.contains("hc_events_delivered_total"))
        }

        @Test("a session that is ended closes its sockets with 4401 and gives them nothing more")
        func revoked() throws {
            let token = try platform.login("sunrise")
            let other = try platform.login("sunrise")
            let pair = try Pair(platform, token)
            let socket = try follow(["calendar:\(pair.practitioner)"], token: other)
            let witness = try follow(["calendar:\(pair.practitioner)"], token: token)
            #expect(
                try platform.curl("POST", "sunrise", "/v1/auth/logout", token: other).status == 204)
            let id = try book(pair, 1, token: token)
            #expect(try witness.json()["id"]?.asString == id)
            #expect(try socket.receive() == .close(code: 4401, reason: "session ended"))
        }

        @Test("ids of another clinic are answered as ids of nobody")
        func foreignTopics() throws {
            let token = try platform.login("sunrise")
            let pair = try Pair(platform, token)
            let lakeside = try platform.login("lakeside")
            let socket = try open(try ticket("lakeside", lakeside), "lakeside")
            _ = try socket.json()
            let absent = "018f0000-0000-7000-8000-0123456789ab"
            for id in [pair.patient, absent] {
                try socket.send(["type": "subscribe", "topics": [.string("patient:\(id)")]])
                let answer = try socket.json()
                #expect(answer["code"]?.asString == "not-found", "\(answer.text)")
            }
            _ = try book(pair, 1, token: token)
            try socket.send(["type": "ping"])
            #expect(try socket.json()["type"]?.asString == "pong")
        }

        // MARK: Tickets

        @Test("a ticket opens one socket; used, foreign and invented ones are refused alike")
        func tickets() throws {
            let token = try platform.login("sunrise")
            let used = try ticket("sunrise", token)
            let socket = try open(used)
            _ = try socket.json()
            let foreign = try ticket("sunrise", token)
            var bodies: [String] = []
            for (text, slug) in [
                (used, "sunrise"), (foreign, "lakeside"),
                ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "sunrise"), ("x", "sunrise"),
                ("", "sunrise"),
            ] {
                do {
                    _ = try open(text, slug)
                    Issue.record("a ticket was taken that is none")
                } catch let refused as WebSocketClient.Refused {
                    #expect(refused.status == 401, "\(refused)")
                    bodies.append(try bare(refused.body))
                }
            }
            #expect(Set(bodies).count == 1)
            // At the other clinic it was not used up.
            _ = try open(foreign).json()
            let log = try platform.log()
            #expect(!log.contains(used) && !log.contains(foreign))
        }

        @Test("what is no WebSocket is told so, and costs no ticket")
        func plainRequest() throws {
            let token = try platform.login("sunrise")
            let ticket = try ticket("sunrise", token)
            let answer = try platform.curl("GET", "sunrise", "/v1/events/ws?ticket=\(ticket)")
            #expect(answer.status == 426)
            _ = try open(ticket).json()
        }

        @Test(
            "a page of an origin that the clinic did not name opens no socket; its own host's does"
        )
        func origins() throws {
            let token = try platform.login("lakeside")
            let portal = "https://portal.example"
            func attempt(_ origin: String?) throws -> Int {
                do {
                    let socket = try open(
                        try ticket("lakeside", token), "lakeside",
                        fields: origin.map { ["Origin: \($0)"] } ?? [])
                    #expect(try socket.json()["type"]?.asString == "welcome")
                    return 101
                } catch let refused as WebSocketClient.Refused {
                    return refused.status
                }
            }
            // It has named none.
            #expect(try attempt("https://evil.example") == 403)
            #expect(try attempt("http://lakeside.localhost:\(platform.port)") == 101)
            #expect(try attempt(nil) == 101)
            #expect(
                try platform.admin(["tenant", "cors", "lakeside", "--allow", portal]).status == 0)
            // Each worker hears of it within a second: when both have, no attempt is refused any more.
            var successes = 0
            for _ in 0..<500 where successes < 20 {
                successes = try attempt(portal) == 101 ? successes + 1 : 0
            }
            #expect(successes == 20)
            #expect(try attempt("https://evil.example") == 403)
            #expect(try attempt("null") == 403)
            #expect(try attempt(portal + ".evil.example") == 403)
            #expect(try attempt(portal) == 101)
            #expect(try attempt("http://lakeside.localhost:\(platform.port)") == 101)
            #expect(try attempt(nil) == 101)
            #expect(
                try platform.admin(["tenant", "cors", "lakeside", "--remove", portal]).status == 0)
        }

        // MARK: Faults

        @Test("a roll says 1012, and who comes back with the last place misses nothing")
        func roll() throws {
            let token = try platform.login("sunrise")
            let pair = try Pair(platform, token)
            let topics = ["calendar:\(pair.practitioner)"]
            var sockets = try (0..<4).map { _ in try follow(topics, token: token) }
            var heard: [[String]] = Array(repeating: [], count: sockets.count)
            var places: [Int64?] = Array(repeating: nil, count: sockets.count)
            var booked = try (0..<3).map { try book(pair, $0, token: token) }
            // Everybody has a place to come back with.
            for index in sockets.indices {
                for _ in booked {
                    let event = try sockets[index].json()
                    heard[index].append(event["id"]?.asString ?? "")
                    places[index] = event["sequence"]?.asInteger
                }
            }
            let (supervisor, before) = try platform.serverProcesses()
            kill(supervisor, SIGHUP)
            for hour in 3..<20 { booked.append(try book(pair, hour, token: token)) }
            for worker in before { try platform.waitForExit(worker) }
            for index in sockets.indices {
                while heard[index].count < booked.count {
                    switch try sockets[index].receive() {
                    case .text(let text):
                        let event = try JSONReader.parse(Array(text.utf8))
                        #expect(event["type"]?.asString == "event", "\(text)")
                        heard[index].append(event["id"]?.asString ?? "")
                        places[index] = event["sequence"]?.asInteger
                    case .close(let code, let reason):
                        #expect(code == 1012)
                        #expect(reason.hasPrefix("retry-after="))
                        sockets[index] = try follow(topics, after: places[index], token: token)
                    case nil: throw FixtureError("the connection ended without a word")
                    }
                }
                #expect(Set(heard[index]) == Set(booked))
                #expect(Set(heard[index]).count == heard[index].count)
            }
        }

        /// Of the things that a socket tells of, up to this one.
        private func ids(_ socket: WebSocketClient, until last: String) throws -> [String] {
            var ids: [String] = []
            while ids.last != last {
                let event = try socket.json()
                ids.append(try #require(event["id"]?.asString, "\(event.text)"))
            }
            return ids
        }

        @Test(
            "Redis killed: tickets wait, sockets stay and are told to read anew, and the feed goes on"
        )
        func redisKilled() throws {
            let token = try platform.login("sunrise")
            let pair = try Pair(platform, token)
            let topic = "calendar:\(pair.practitioner)"
            let socket = try follow([topic], token: token)
            try platform.killService("redis/pid")
            let refused = try platform.curl("POST", "sunrise", "/v1/events/tickets", token: token)
            #expect(refused.status == 503)
            #expect(refused.header("Retry-After") != nil)
            let during = try book(pair, 1, token: token)
            try platform.startServices()
            let resync = try socket.json()
            #expect(resync["type"]?.asString == "resync", "\(resync.text)")
            #expect(resync["topic"]?.asString == topic)
            let after = try book(pair, 2, token: token)
            // What was swept before the feed was back is in front of the resync's place, and is read anew; else it is told.
            let told = try ids(socket, until: after)
            #expect(told == [after] || told == [during, after])
            let place = try #require(resync["sequence"]?.asInteger)
            let again = try follow([topic], after: place, token: token)
            #expect(try ids(again, until: after) == told, "all that is behind that place was told")
        }
    }

    /// Workers that die at the worst moment, on a platform of its own.
    @Suite struct EventFaultTests {
        @Test("a worker killed between commit and publishing: the event comes by the sweeper, once")
        func killedBeforePublishing() throws {
            // In each worker the third commit with a message is the last.
            let platform = try RunningPlatform(
                variables: ["HC_FAULT": "events.after-commit=kill@3"])
            defer {
                do {
                    try platform.down()
                } catch {
                    Issue.record("the platform does not end: \(error)")
                }
            }
            let token = try platform.login("sunrise")
            func make(_ path: String, _ json: String) throws -> String {
                let made = try platform.curl("POST", "sunrise", path, token: token, json: json)
                return try #require(try made.json["id"]?.asString, "\(path): \(made.body)")
            }
            let practitioner = try make("/v1/practitioners", #"{"name":"Dr. Fault"}"#)
            let patient = try make(
                "/v1/patients",
                #"{"givenName":"Test","familyName":"Fault","birthDate":"1980-02-29","sex":"male"}"#)
            var booked: Set<String> = []
            var socket: WebSocketClient?
            var heard: [String] = []
            var place: Int64?

            func connect() throws -> WebSocketClient {
                let answer = try platform.curl(
                    "POST", "sunrise", "/v1/events/tickets", token: token)
                let ticket = try #require(try answer.json["ticket"]?.asString, "\(answer.body)")
                let made = try WebSocketClient(
                    port: platform.port, host: "sunrise.localhost",
                    path: "/v1/events/ws?ticket=\(ticket)")
                _ = try made.json()
                try made.send([
                    "type": "subscribe", "topics": [.string("calendar:\(practitioner)")],
                    "after": place.map { .integer($0) } ?? .null,
                ])
                #expect(try made.json()["type"]?.asString == "subscribed")
                return made
            }

            let first = try connect()
            socket = first
            // So many that several workers die on the way; a client repeats until it knows.
            for hour in 0..<8 {
                let output = try Subprocess.run(
                    "/usr/bin/curl",
                    [
                        "-sS", "--fail", "--retry", "30", "--retry-delay", "1",
                        "--retry-all-errors", "--max-time", "60", "--resolve",
                        "sunrise.localhost:\(platform.port):127.0.0.1", "-H",
                        "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
                        "-H", "Idempotency-Key: fault-\(hour)", "-d",
                        """
                        {"patientId":"\(patient)","practitionerId":"\(practitioner)",\
                        "startsAt":"2033-04-04T\(hour + 10):00:00Z",\
                        "endsAt":"2033-04-04T\(hour + 10):30:00Z"}
                        """, "http://sunrise.localhost:\(platform.port)/v1/appointments",
                    ])
                let last = output.split(separator: "\n").last.map(String.init) ?? output
                booked.insert(
                    try #require(
                        try JSONReader.parse(Array(last.utf8))["id"]?.asString, "\(output)"))
            }
            #expect(booked.count == 8)
            while heard.count < booked.count {
                do {
                    guard case .text(let text)? = try (socket ?? connect()).receive() else {
                        socket = try connect()
                        continue
                    }
                    let event = try JSONReader.parse(Array(text.utf8))
                    #expect(event["type"]?.asString == "event", "\(text)")
                    heard.append(event["id"]?.asString ?? "")
                    place = event["sequence"]?.asInteger
                }
            }
            #expect(Set(heard) == booked)
            #expect(Set(heard).count == heard.count)
            let log = try platform.log()
            #expect(log.contains("worker"), "\(log)")
        }
    }
}
