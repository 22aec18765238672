/// What is to be done with a clinic's door on a shard whose server may have forgotten the last changes of it: a standby
/// that took over, or a server that was restored. The control map is right; the door is made to follow. Pure.
enum DoorVerdict: Equatable, Sendable {
    case keep
    /// Served here, in another state than the clinic's: an un-gating, or a suspension, was forgotten.
    case set(state: String)
    /// Served elsewhere: the fence was forgotten. What it took since from nobody knows whom is on no other shard.
    case leave(epoch: Int64, to: String)
    /// Nothing of it belongs here.
    case dismiss
    /// It is placed here, and the server has not what was here: nobody is let in.
    case lost(String, suspends: Bool)
    /// The shard knows of a later placement than the control map: that one is old.
    case mapIsBehind

    struct Door: Equatable, Sendable {
        var state: String
        var epoch: Int64
    }

    struct Place: Equatable, Sendable {
        var shard: String
        var epoch: Int64
        /// Of the placement.
        var state: String
        /// Of the clinic.
        var tenantState: String
    }

    /// States in which a door lets somebody in, or will.
    static let open: Set = ["rw", "ro", "suspended", "draining", "fenced", "handover"]

    /// No move of the clinic to or from the shard is before its commit point.
    ///
    /// - Parameters:
    ///   - door: nil: the shard does not know the clinic.
    ///   - place: nil: the control map does not.
    static func of(_ door: Door?, _ place: Place?, on shard: String) -> DoorVerdict {
        guard let place else {
            guard let door, door.state != "absent", door.state != "moved" else { return .keep }
            return .dismiss
        }
        if let door, door.epoch > place.epoch { return .mapIsBehind }
        guard place.shard == shard else {
            switch door?.state {
            case nil, "absent", "moved": return .keep
            case "incoming": return .dismiss
            default: return .leave(epoch: place.epoch, to: place.shard)
            }
        }
        return ofServed(door, place)
    }

    private static func ofServed(_ door: Door?, _ place: Place) -> DoorVerdict {
        switch place.state {
        case "opening": return .keep
        case "closed":
            guard let door, open.contains(door.state), door.state != "suspended" else {
                return .keep
            }
            return .set(state: "suspended")
        default: break
        }
        guard let door else { return .lost("the server does not know it", suspends: false) }
        guard door.epoch == place.epoch, open.contains(door.state) else {
            return .lost(
                "the server has it as \(door.state) at epoch \(door.epoch), and should serve it at epoch"
                    + " \(place.epoch)", suspends: open.contains(door.state))
        }
        let wanted = MoveFence.doorState(place.tenantState)
        return door.state == wanted ? .keep : .set(state: wanted)
    }
}
