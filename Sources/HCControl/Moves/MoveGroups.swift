/// Who is to be apart from whom, for moves whose target an operator names himself: the groups of `tenants/rebalance.json`.
///
/// Drains and plans choose a target and heed the groups in that; they bring what they have found with their plans
/// (`MovePlan.apart`).
package struct MoveGroups: Sendable {
    private let clinics: [String: RebalanceSettings.Clinic]
    /// A clinic may come to a shard where others of its group are: somebody insists. Who they are is told all the same.
    package let areIgnored: Bool

    /// Nothing is known of groups, nobody is kept from anybody.
    package static let none = MoveGroups(RebalanceSettings(), areIgnored: true)

    package init(_ settings: RebalanceSettings, areIgnored: Bool = false) {
        clinics = settings.clinics
        self.areIgnored = areIgnored
    }

    /// The slugs of the others of a clinic's group, whether there are such clinics or not.
    package func others(of slug: String) -> [String] {
        guard let group = clinics[slug]?.group else { return [] }
        return clinics.filter { $0.key != slug && $0.value.group == group }.keys.sorted()
    }
}
