import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// Two shards on two servers: one dies, and only its clinic knows.
    @Suite struct DeadShardTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared("two-servers", ["HC_SHARD_SERVERS": "2"])
        }

        private func read(_ slug: String, _ token: String) throws -> CurlAnswer {
            // Well below the deadline of a request: one that waits for it is no answer at once. And nothing that a
            // cache could answer as well.
            try platform.curl(
                "GET", slug, "/v1/clinic", token: token, options: ["--max-time", "10"])
        }

        @Test(
            "a dead shard's clinic is told at once, the other sees nothing, and it comes back by itself"
        )
        func oneOfTwo() throws {
            let alive = try platform.login("sunrise")
            let dead = try platform.login("lakeside")
            #expect(try read("lakeside", dead).status == 200)
            try platform.killService("postgres-2/postmaster.pid")

            // The server's sessions outlive their parent for a moment and may still answer.
            var answer = try read("lakeside", dead)
            for _ in 0..<1000 where answer.status == 200 { answer = try read("lakeside", dead) }
            for _ in 0..<20 {
                #expect(answer.status == 503, "\(answer.body)")
                #expect(answer.header("Retry-After").flatMap { Int($0) } ?? 0 > 0)
                #expect(try read("sunrise", alive).status == 200)
                answer = try read("lakeside", dead)
            }
            let write = try platform.curl(
                "POST", "lakeside", "/v1/practitioners", token: dead,
                json: #"{"name":"Dr. Nobody"}"#, options: ["--max-time", "10"])
            #expect(write.status == 503, "\(write.body)")
            // A load balancer must not take the server out: the other clinics are well.
            try platform.waitReady(attempts: 1) { $0["ready"]?.asBool == true }

            // Every worker finds out for itself: many answers in a row are of all of them.
            try platform.startServices()
            var inARow = 0
            for _ in 0..<2000 where inARow < 40 {
                answer = try read("lakeside", dead)
                inARow = answer.status == 200 ? inARow + 1 : 0
            }
            #expect(inARow == 40, "\(answer.body)")
        }
    }
}
