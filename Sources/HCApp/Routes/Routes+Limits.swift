import HCClinic
import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    static func addLimits(to table: inout RouteTable) {
        table.addImmediate(
            .get, "/v1/limits", "readLimits", permission: nil, class: .read,
            "The clinic's tier, its rules, and what is left of each."
        ) { request, tenant, actor in
            let user = actor.accountID?.uuid
            let address = LimitAddress(request.remoteAddress)
            if let report = tenant.knownLimitReport(user: user, address: address) {
                return .ready(answer(report))
            }
            return .pending { answer(await tenant.limitReport(user: user, address: address)) }
        }
    }

    private static func answer(_ report: LimitReport) -> HTTPResponse {
        // A rule is told in some 200 bytes.
        let bytes = 512 + 256 * report.entries.count
        var json = JSONWriter(appendingTo: ByteBuffer(reserving: bytes))
        json.beginObject()
        report.write(to: &json)
        json.key("costs" as StaticString)
        json.raw(costs)
        json.endObject()
        return .json((consume json).finish())
    }

    /// The units of each class of request: the same for everybody.
    private static let costs: [UInt8] = {
        var json = JSONWriter()
        json.beginObject()
        for known in RouteClass.allCases where known != .platform {
            json.key(known.rawValue)
            json.integer(known.cost.units)
        }
        json.endObject()
        return json.finish().bytes
    }()
}
