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
            var json = begun(tenant)
            if tenant.reportLimitsNow(user: user, address: address, to: &json) {
                return .ready(ended(consume json))
            }
            return .pending {
                var json = begun(tenant)
                await tenant.reportLimits(user: user, address: address, to: &json)
                return ended(consume json)
            }
        }
    }

    private static func begun(_ tenant: TenantContext) -> JSONWriter {
        // A rule is told in some 200 bytes.
        var json = JSONWriter(
            appendingTo: ByteBuffer(reserving: 512 + 256 * tenant.limitRuleCount))
        json.beginObject()
        return json
    }

    private static func ended(_ json: consuming JSONWriter) -> HTTPResponse {
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
