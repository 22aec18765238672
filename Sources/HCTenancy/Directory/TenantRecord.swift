import HCCore
import HCIO

/// What a process knows of one clinic: a row of `directory_entry`.
///
/// Immutable; a change makes a new record. A class, so that the tables by id and by host and every request
/// share one copy.
package final class TenantRecord: Sendable {
    package enum State: String, Sendable {
        /// Being made: nobody can reach it by its host.
        case provisioning
        case active
        case readOnly = "readonly"
        case suspended
        case deleting
    }

    package enum PlacementState: String, Sendable {
        case opening
        case serving
        case moving
        case closed
    }

    package let id: TenantID
    package let slug: String
    package let name: String
    /// Verified hosts, lower case; the platform's own first.
    package let hosts: [String]
    package let tierName: String
    package let state: State
    package let timeZone: String
    package let locale: String
    /// Web origins whose pages may call the clinic's API, in the form of `WebOrigin.text`.
    package let origins: [String]
    package let epoch: Int64
    let shard: ShardID
    let placement: PlacementState
    let keys: [WrappedKey]
    /// How the clinic's keys in Redis begin (see `TenantRedis`); made once, for every request needs it.
    let redisPrefix: String
    /// What the limits have found for it under their map: no part of what the record says.
    @LoopActor var limits: TenantLimits?

    package init(
        id: TenantID, slug: String, name: String, hosts: [String], tierName: String, state: State,
        timeZone: String, locale: String, origins: [String] = [], shard: ShardID, epoch: Int64,
        placement: PlacementState, keys: [WrappedKey]
    ) {
        self.id = id
        self.slug = slug
        self.name = name
        self.hosts = hosts
        self.tierName = tierName
        self.state = state
        self.timeZone = timeZone
        self.locale = locale
        self.origins = origins
        self.shard = shard
        self.epoch = epoch
        self.placement = placement
        self.keys = keys
        redisPrefix = "\(shard):{\(id)}:\(epoch):"
    }

    /// Whether requests may come in by its host. The shard has the last word in `hc_enter()`.
    package var isServed: Bool {
        switch (state, placement) {
        case (.active, .serving), (.active, .moving), (.readOnly, .serving), (.readOnly, .moving),
            (.suspended, .serving), (.suspended, .moving):
            true
        default: false
        }
    }

    /// Whether the other record leads to another place: worth another try after a refusal.
    func isElsewhere(than other: TenantRecord) -> Bool {
        epoch != other.epoch || shard != other.shard
    }
}

extension TenantRecord: Equatable {
    package static func == (left: TenantRecord, right: TenantRecord) -> Bool {
        left === right
            || left.id == right.id && left.slug == right.slug && left.name == right.name
                && left.hosts == right.hosts && left.tierName == right.tierName
                && left.state == right.state && left.timeZone == right.timeZone
                && left.locale == right.locale && left.origins == right.origins
                && left.shard == right.shard
                && left.epoch == right.epoch && left.placement == right.placement
                && left.keys == right.keys
    }
}
