import HCHTTP

extension Routes {
    static func addPlatform(to table: inout RouteTable) {
        table.addPlatformImmediate(
            .get, "/health", "health",
            // A load balancer must not be told that nobody is there because many are.
            lane: .safety, "Whether somebody answers; nothing else is told here."
        ) {
            _ in .json(text: #"{"status":"ok"}"#)
        }
    }
}
