import HCControl
import HCIO
import HCTenancy

/// The rules of the fleet, as far as they say who is to be apart from whom.
@LoopActor
enum GroupRules {
    nonisolated static let option = CommandSpecification.Option.value(
        "rules", "FILE",
        "Says who is of a group; rebalance.json of the tenants directory unless given.")

    static func settings(
        _ invocation: Invocation, _ plane: ControlPlane
    ) throws -> RebalanceSettings {
        try RebalanceDesk.settings(
            file: invocation.option("rules")
                ?? "\(plane.configuration.tenantsDirectory)/rebalance.json")
    }

    /// For who is not kept from anything: rules that cannot be read are no reason not to go on.
    static func unlessUnknown(
        _ invocation: Invocation, _ plane: ControlPlane, _ environment: AdminEnvironment
    ) -> MoveGroups {
        do {
            return MoveGroups(try settings(invocation, plane), areIgnored: true)
        } catch {
            environment.tell("warning: nothing is known of groups: \(error)")
            return .none
        }
    }
}
