import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// The directory over HTTP: answered from copies in any worker, never older than the last change.
    @Suite struct DirectoryTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        @Test("who has the answer already is told so, and gets the new one after a change")
        func revalidation() throws {
            let token = try platform.login("sunrise")
            func get(_ path: String, _ headers: [String] = []) throws -> CurlAnswer {
                try platform.curl("GET", "sunrise", path, token: token, headers: headers)
            }
            let made = try platform.curl(
                "POST", "sunrise", "/v1/services", token: token,
                json: #"{"name":"Revalidated","durationMinutes":20,"priceMinor":4500}"#)
            #expect(made.status == 201, "\(made.body)")
            let location = try #require(made.header("Location"))
            for path in ["/v1/services?limit=200", "/v1/directory", location] {
                let first = try get(path)
                #expect(first.status == 200 && first.body.contains("Revalidated"))
                #expect(first.header("Cache-Control") == "private, no-cache")
                let tag = try #require(first.header("ETag"))
                let second = try get(path, ["If-None-Match: \(tag)"])
                #expect(second.status == 304 && second.body == "", "\(path)")
                #expect(second.header("ETag") == tag)
                let coded = try get(
                    path, ["If-None-Match: \(tag.dropLast())-gzip\"", "Accept-Encoding: gzip"])
                #expect(coded.status == 304, "\(path)")
            }
            let tags = try ["/v1/services?limit=200", "/v1/directory", location].map {
                ($0, try #require(try get($0).header("ETag")))
            }
            let changed = try platform.curl(
                "PATCH", "sunrise", location, token: token, json: #"{"name":"Changed"}"#,
                headers: [#"If-Match: "v1""#])
            #expect(changed.status == 200)
            for (path, tag) in tags {
                // Each worker in turn: connections are new.
                for _ in 0..<4 {
                    let answer = try get(path, ["If-None-Match: \(tag)"])
                    #expect(answer.status == 200 && answer.body.contains("Changed"), "\(path)")
                }
            }
        }

        @Test("a slot that is booked is in no worker's list")
        func slots() throws {
            let token = try platform.login("sunrise")
            let practitioner = try #require(
                try platform.curl(
                    "POST", "sunrise", "/v1/practitioners", token: token,
                    json: #"{"name":"Dr. Slots"}"#
                ).json["id"]?.asString)
            let patient = try #require(
                try platform.curl("GET", "sunrise", "/v1/patients?limit=1", token: token)
                    .json["items"]?.asArray?.first?["id"]?.asString)
            let path =
                "/v1/slots?practitionerId=\(practitioner)&durationMinutes=30"
                + "&from=2032-07-01T10:00:00Z&to=2032-07-01T12:00:00Z"
            func count() throws -> Int? {
                try platform.curl("GET", "sunrise", path, token: token).json["items"]?.asArray?
                    .count
            }
            for _ in 0..<4 { #expect(try count() == 8) }
            let booked = try platform.curl(
                "POST", "sunrise", "/v1/appointments", token: token,
                json: """
                    {"patientId":"\(patient)","practitionerId":"\(practitioner)",
                    "startsAt":"2032-07-01T10:00:00Z","endsAt":"2032-07-01T10:30:00Z"}
                    """)
            #expect(booked.status == 201, "\(booked.body)")
            for _ in 0..<4 { #expect(try count() == 6) }
            let bad = try platform.curl("GET", "sunrise", "/v1/slots?from=x", token: token)
            #expect(bad.status == 400 || bad.status == 422)
        }
    }
}
