import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    static func addPlatform(to table: inout RouteTable) {
        table.addPlatformImmediate(
            .get, "/health", "health",
            // A load balancer must not be told that nobody is there because many are.
            lane: .safety, "Whether somebody answers; nothing else is told here."
        ) {
            _ in .json(text: #"{"status":"ok"}"#)
        }
        table.add(
            .get, "/v1/limits", "readLimits", permission: nil, class: .read,
            "The clinic's tier, and what is left of its limit."
        ) { request in
            var json = JSONWriter()
            json.beginObject()
            json.member("tier", request.tenant.tier.name)
            json.member("unitsPerSecond", request.tenant.tier.bucketUnitsPerSecond)
            json.member("burstUnits", request.tenant.tier.bucketBurst)
            if let limit = request.limit {
                json.member("remaining", limit.remaining)
                json.member("resetSeconds", limit.resetAfter.inSecondsRoundedUp)
            }
            json.endObject()
            return .json(json.finish())
        }
    }
}
