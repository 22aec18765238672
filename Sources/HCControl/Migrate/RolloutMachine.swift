/// Which shard of a run of migrations is next: wave by wave, and none after the first that fails.
///
/// Pure: `WaveRunner` does what it says to databases, `RolloutSimulation` to imagined ones. Several workers ask it for
/// shards, so when one fails the others of its wave that are being worked on are brought to their end.
package struct RolloutMachine: Sendable {
    package enum Ending: String, Sendable {
        /// Every shard is migrated, and every wave was verified.
        case done
        /// A shard failed, or did not pass the gate of its wave.
        case halted
        /// Somebody wants it ended, or the process may not go on.
        case stopped
    }

    private let waves: [[String]]
    /// The one that is being worked on.
    package private(set) var wave = 0
    private var rest: ArraySlice<String>
    package private(set) var running: Set<String> = []
    /// How many shards are migrated.
    package private(set) var done = 0
    package private(set) var failed: [String] = []
    private var isStopped = false
    private var isVerified = false

    /// - Parameter waves: as `MigrationWaves` makes them.
    package init(waves: [[String]]) {
        self.waves = waves
        rest = waves.first.map { $0[...] } ?? []
        isVerified = waves.isEmpty
    }

    package var mayGoOn: Bool { failed.isEmpty && !isStopped }

    /// Nobody works on a shard of the wave, and none of it is left to be begun.
    package var isWaveOver: Bool { running.isEmpty && (rest.isEmpty || !mayGoOn) }

    /// Nil while there is something to do.
    package var ending: Ending? {
        guard isWaveOver else { return nil }
        if !failed.isEmpty { return .halted }
        if isVerified { return .done }
        return isStopped ? .stopped : nil
    }

    /// The shard that a worker begins with now; nil: none of this wave.
    package mutating func next() -> String? {
        guard mayGoOn, let shard = rest.popFirst() else { return nil }
        running.insert(shard)
        return shard
    }

    package mutating func migrated(_ shard: String) {
        running.remove(shard)
        done += 1
    }

    package mutating func failed(_ shard: String) {
        running.remove(shard)
        failed.append(shard)
    }

    /// It was given up in good order, between two of its migrations.
    package mutating func leftOff(_ shard: String) { running.remove(shard) }

    /// Begins nothing more.
    package mutating func stop() { isStopped = true }

    /// The gate of the wave: what all its shards look like, seen together.
    ///
    /// - Parameter failing: those that do not look as they should; none: the next wave may begin.
    package mutating func verified(failing: [String]) {
        precondition(isWaveOver, "a wave is looked at when it is over")
        failed += failing
        guard mayGoOn else { return }
        guard wave + 1 < waves.count else {
            isVerified = true
            return
        }
        wave += 1
        rest = waves[wave][...]
    }
}
