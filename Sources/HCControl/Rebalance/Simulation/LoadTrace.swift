/// What a simulation plays: shards, clinics in their first places, and what each uses at each moment.
package protocol LoadTrace: Sendable {
    /// The fleet at the start. Its clinics' loads are not read.
    var fleet: RebalanceFleet { get }

    /// Seconds that it lasts.
    var seconds: Int { get }

    /// What it assumes, for people to read.
    var assumptions: [String] { get }

    /// Loads of all clinics in the step that begins at `second`. Asked for in the order of time.
    mutating func play(_ second: Int, step: Int, into loads: inout [LoadVector])
}
