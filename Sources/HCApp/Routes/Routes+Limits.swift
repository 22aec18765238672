import HCClinic
import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    static func addLimits(to table: inout RouteTable) {
        table.addImmediate(
            .get, "/v1/limits", "readLimits", permission: nil, class: .read,
            "The clinic's tier, its rules, and what is left of each."
        ) { request in
            let (user, address) = (
                request.actor.accountID?.uuid, LimitAddress(request.http.remoteAddress)
            )
            if let report = request.tenant.knownLimitReport(user: user, address: address) {
                return .ready(answer(report))
            }
            return .pending {
                answer(await request.tenant.limitReport(user: user, address: address))
            }
        }
    }

    private static func answer(_ report: LimitReport) -> HTTPResponse {
        var json = JSONWriter()
        json.beginObject()
        json.member("tier", report.tier)
        // Whether this is what is left for the clinic, or for this server while the common count is away.
        json.member("source", report.isLocal ? "local" : "shared")
        json.key("rules")
        json.beginArray()
        for entry in report.entries { write(entry, to: &json) }
        json.endArray()
        json.key("costs")
        json.beginObject()
        for known in RouteClass.allCases where known != .platform {
            json.key(known.rawValue)
            json.integer(known.cost.units)
        }
        json.endObject()
        json.endObject()
        return .json(json.finish())
    }

    private static func write(_ entry: LimitReport.Entry, to json: inout JSONWriter) {
        let rule = entry.rule
        json.beginObject()
        json.member("name", rule.name)
        json.member("scope", rule.scope.rawValue)
        if let classes = rule.classes {
            json.key("classes")
            json.beginArray()
            for kind in LimitClass.allCases where classes.contains(kind) {
                json.string(kind.rawValue)
            }
            json.endArray()
        }
        json.member("algorithm", rule.algorithm.rawValue)
        json.member("units", rule.units)
        json.member("per", Quantity.text(rule.window))
        json.member("capacity", rule.capacity)
        json.member("safetyReserve", entry.reserve)
        json.member("remaining", entry.remaining)
        json.member("resetSeconds", entry.resetAfter.inSecondsRoundedUp)
        json.endObject()
    }
}
