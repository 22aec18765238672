import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// The promise of the README, kept with curl alone. On a platform of its own: what other tests have used of the limits of
    /// logins and bookings, which look a minute back, would be missing here.
    @Suite struct FirstClinicTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared("first-clinic")
        }

        private func makePatient(
            _ slug: String, token: String, family: String, key: String? = nil
        ) throws -> CurlAnswer {
            try platform.curl(
                "POST", slug, "/v1/patients", token: token,
                json: """
                    {"givenName":"Test","familyName":"\(family)","birthDate":"1980-02-29","sex":"female",
                     "phone":"+15550100777","email":"test.patient@example.org"}
                    """,
                headers: key.map { ["Idempotency-Key: \($0)"] } ?? [])
        }

        private func practitioner(_ slug: String, token: String) throws -> String {
            let answer = try platform.curl("GET", slug, "/v1/practitioners", token: token)
            return try #require(try answer.json["items"]?.asArray?.first?["id"]?.asString)
        }

        @Test("an owner registers a patient, finds her by the first letters of her name, and books")
        func story() throws {
            let token = try platform.login("sunrise")
            let created = try makePatient("sunrise", token: token, family: "Zyxwell")
            #expect(created.status == 201)
            let patient = try #require(try created.json["id"]?.asString)
            #expect(created.header("ETag") != nil)

            let found = try platform.curl(
                "GET", "sunrise", "/v1/patients?familyName=zYx", token: token)
            #expect(found.status == 200)
            #expect(
                try found.json["items"]?.asArray?.contains { $0["id"]?.asString == patient } == true
            )

            let doctor = try practitioner("sunrise", token: token)
            let booking = """
                {"patientId":"\(patient)","practitionerId":"\(doctor)","startsAt":"2031-03-05T10:00:00Z",
                 "endsAt":"2031-03-05T10:30:00Z","reason":"Check-up"}
                """
            let booked = try platform.curl(
                "POST", "sunrise", "/v1/appointments", token: token, json: booking,
                headers: ["Idempotency-Key: story-1"])
            #expect(booked.status == 201, "\(booked.body)")
            let again = try platform.curl(
                "POST", "sunrise", "/v1/appointments", token: token, json: booking,
                headers: ["Idempotency-Key: story-2"])
            #expect(again.status == 409)
            #expect(try again.json["code"]?.asString == "slot-taken")

            let appointment = try #require(try booked.json["id"]?.asString)
            let read = try platform.curl(
                "GET", "sunrise", "/v1/appointments/\(appointment)", token: token)
            #expect(read.status == 200)
            #expect(try read.json["reason"]?.asString == "Check-up")
            let readPatient = try platform.curl(
                "GET", "sunrise", "/v1/patients/\(patient)", token: token)
            #expect(try readPatient.json["familyName"]?.asString == "Zyxwell")
        }

        @Test(
            "nothing of one clinic can be seen at another with any token, and the answers give nothing away"
        )
        func isolation() throws {
            let sunrise = try platform.login("sunrise")
            let lakeside = try platform.login("lakeside")
            let patient = try #require(
                try makePatient("sunrise", token: sunrise, family: "Isolated").json["id"]?.asString)
            let path = "/v1/patients/\(patient)"
            let own = try platform.curl("GET", "lakeside", path, token: lakeside)
            let foreign = try platform.curl("GET", "lakeside", path, token: sunrise)
            let unknownHost = try platform.curl("GET", "nowhere", path, token: sunrise)
            let unknownPath = try platform.curl("GET", "lakeside", "/v1/nothing", token: lakeside)
            for answer in [own, foreign, unknownHost, unknownPath] {
                #expect(answer.status == 404)
                #expect(try withoutRequestID(answer) == withoutRequestID(own))
            }
            let found = try platform.curl(
                "GET", "lakeside", "/v1/patients?familyName=Isolated", token: lakeside)
            #expect(try found.json["items"]?.asArray?.isEmpty == true)
        }

        private func withoutRequestID(_ answer: CurlAnswer) throws -> String {
            let id = try #require(try answer.json["requestId"]?.asString)
            return answer.body.split(separator: id, omittingEmptySubsequences: false).joined()
        }

        @Test("of thirty concurrent bookings of one slot exactly one is made")
        func storm() throws {
            let token = try platform.login("sunrise")
            let doctor = try practitioner("sunrise", token: token)
            let patient = try #require(
                try makePatient("sunrise", token: token, family: "Storm").json["id"]?.asString)
            let body = """
                {"patientId":"\(patient)","practitionerId":"\(doctor)","startsAt":"2031-04-07T09:00:00Z",\
                "endsAt":"2031-04-07T09:20:00Z","reason":"Storm"}
                """
            var arguments = [
                "-sS", "--parallel", "--parallel-immediate", "--parallel-max", "30", "--resolve",
                "sunrise.localhost:\(platform.port):127.0.0.1",
            ]
            for attempt in 0..<30 {
                if attempt > 0 { arguments.append("--next") }
                arguments += [
                    "-X", "POST", "-H", "Authorization: Bearer \(token)", "-H",
                    "Content-Type: application/json", "-H", "Idempotency-Key: storm-\(attempt)",
                    "-d", body,
                    "-o", "/dev/null", "-w", "%{http_code}\\n",
                    "http://sunrise.localhost:\(platform.port)/v1/appointments",
                ]
            }
            let output = try Subprocess.run("/usr/bin/curl", arguments)
            let codes: [Substring] = output.split(whereSeparator: \.isNewline).filter {
                $0.count == 3
            }
            #expect(codes.count == 30, "\(output)")
            #expect(codes.count { $0 == "201" } == 1)
            #expect(codes.count { $0 == "409" } == 29)
        }

        @Test("a request that is given again with its key is answered from the record")
        func replay() throws {
            let token = try platform.login("sunrise")
            let first = try makePatient("sunrise", token: token, family: "Replay", key: "replay-1")
            let second = try makePatient("sunrise", token: token, family: "Replay", key: "replay-1")
            #expect(first.status == 201)
            #expect(second.status == 201)
            #expect(first.body == second.body)
            #expect(second.header("Idempotency-Replayed") == "true")
            let other = try makePatient("sunrise", token: token, family: "Other", key: "replay-1")
            #expect(other.status == 422)
        }

        @Test("changes need the version they are made from")
        func versions() throws {
            let token = try platform.login("sunrise")
            let created = try makePatient("sunrise", token: token, family: "Version")
            let path = "/v1/patients/" + (try #require(try created.json["id"]?.asString))
            let tag = try #require(created.header("ETag"))
            let change = #"{"phone":"+15550100778"}"#
            let blind = try platform.curl("PATCH", "sunrise", path, token: token, json: change)
            #expect(blind.status == 428)
            let good = try platform.curl(
                "PATCH", "sunrise", path, token: token, json: change, headers: ["If-Match: \(tag)"])
            #expect(good.status == 200)
            let stale = try platform.curl(
                "PATCH", "sunrise", path, token: token, json: change, headers: ["If-Match: \(tag)"])
            #expect(stale.status == 412)
        }

        @Test("a session that is ended does not get through its next request")
        func logout() throws {
            let token = try platform.login("sunrise")
            #expect(try platform.curl("GET", "sunrise", "/v1/auth/me", token: token).status == 200)
            #expect(
                try platform.curl("POST", "sunrise", "/v1/auth/logout", token: token).status == 204)
            #expect(try platform.curl("GET", "sunrise", "/v1/auth/me", token: token).status == 401)
        }

        @Test(
            "bad input is named field by field",
            arguments: [
                (#"{"givenName":"T""#, 400),
                (#"{"givenName":1,"familyName":"T","birthDate":"1980-01-01","sex":"female"}"#, 422),
                (
                    #"{"givenName":"T","familyName":"T","birthDate":"1980-02-30","sex":"female"}"#,
                    422
                ),
                (
                    #"{"givenName":"T","familyName":"T","birthDate":"1980-01-01","sex":"female","x":1}"#,
                    422
                ),
                (
                    #"{"givenName":"T\u0000","familyName":"T","birthDate":"1980-01-01","sex":"female"}"#,
                    422
                ),
            ])
        func badInput(json: String, status: Int) throws {
            let token = try platform.login("sunrise")
            let answer = try platform.curl(
                "POST", "sunrise", "/v1/patients", token: token, json: json)
            #expect(answer.status == status, "\(answer.body)")
            #expect(answer.header("Content-Type") == "application/problem+json")
            if status == 422 { #expect(try answer.json["errors"]?.asArray?.isEmpty == false) }
        }

        @Test("SQL in a name is a name")
        func sqlIsData() throws {
            let token = try platform.login("sunrise")
            let name = "O'Brien'); DROP TABLE patient; --"
            let created = try makePatient("sunrise", token: token, family: name)
            #expect(created.status == 201)
            let path = "/v1/patients/" + (try #require(try created.json["id"]?.asString))
            let read = try platform.curl("GET", "sunrise", path, token: token)
            #expect(try read.json["familyName"]?.asString == name)
        }

        @Test(
            "a third clinic works at once, on the shard with most room, and its create is told from a double"
        )
        func hillview() throws {
            let (status, output) = try platform.admin(
                ["tenant", "create", "hillview", "--name", "Hillview", "--json"])
            #expect(status == 0, "\(output)")
            let made = try JSONReader.parse(Array(output.utf8))
            #expect(made["state"]?.asString == "active")
            #expect(made["smoke"]?.asString != nil)
            let login = try platform.curl(
                "POST", "hillview", "/v1/auth/login",
                json: JSONValue.object(
                    makeObject([
                        ("email", made["ownerEmail"] ?? .null),
                        ("password", made["ownerPassword"] ?? .null),
                    ])
                ).text)
            #expect(login.status == 200)
            let (again, _) = try platform.admin([
                "tenant", "create", "hillview", "--name", "Hillview",
            ])
            #expect(again == 5)
        }

        private func makeObject(_ members: [(String, JSONValue)]) -> JSONObject {
            var object = JSONObject()
            for (name, value) in members { object.set(value, for: name) }
            return object
        }

        @Test("the disk, the log and Redis contain neither her name nor her number in clear")
        func nothingInClear() throws {
            let token = try platform.login("sunrise")
            let marker = "Qqplaintextmarker"
            #expect(try makePatient("sunrise", token: token, family: marker).status == 201)
            _ = try platform.curl(
                "GET", "sunrise", "/v1/patients?familyName=\(marker)", token: token)
            // What Redis holds in memory, as a file that is not compressed. That it says something is seen by a mark.
            let place = try Repository.line(of: platform.state + "/services/place")
            let dump = platform.state + "/redis.dump"
            let secrets = platform.state + "/secrets"
            func redis(_ arguments: [String]) throws {
                try Subprocess.run(
                    "/usr/bin/redis-cli",
                    ["-s", try Repository.line(of: secrets + "/redis.socket")] + arguments,
                    environment: [
                        "REDISCLI_AUTH": try Repository.line(of: secrets + "/redis.password")
                    ])
            }
            try redis(["CONFIG", "SET", "rdbcompression", "no"])
            try redis(["SET", "test:clear", "Qqseenincleartext"])
            try redis(["--rdb", dump])
            try redis(["DEL", "test:clear"])
            try Subprocess.run("/bin/grep", ["-aq", "Qqseenincleartext", dump])
            // -a: binary files too. grep exits 1 when nothing is found, which is what must happen.
            let search = try Subprocess(
                "/bin/grep", ["-raliE", "\(marker)|15550100777", platform.state, place],
                errorOutput: .discarded)
            search.closeInput()
            let files = try search.readToEnd()
            #expect(try search.wait() == 1, "found in clear in: \(files)")
        }
    }
}
