import HCCore

/// In which order shards are migrated: one first, then more and more of them.
package struct MigrationWaves: Sendable, Equatable {
    /// Ids; the first wave is the canary alone, and none is empty.
    package let waves: [[String]]
    /// How many of a hundred shards are migrated when a wave is over.
    package static let percentsDefault = [5, 25, 100]

    /// - Parameters:
    ///   - shards: in the order in which they are taken; `canary` is one of them.
    ///   - percents: rising, up to 100.
    /// - Throws: `ControlError` (`bad-waves`).
    package init(
        shards: [String], canary: String, percents: [Int] = percentsDefault
    ) throws(ControlError) {
        guard percents.last == 100, percents.first.map({ $0 > 0 }) == true,
            zip(percents, percents.dropFirst()).allSatisfy({ $0 < $1 })
        else {
            throw ControlError(
                .invalid, code: "bad-waves",
                "waves are rising percentages that end with 100, not "
                    + percents.map(String.init).joined(separator: ","),
                remedy: "As in '--waves 5,25,100'.")
        }
        precondition(shards.contains(canary), "the canary is one of the shards")
        let order = [canary] + shards.filter { $0 != canary }
        var waves = [[canary]]
        var taken = 1
        for percent in percents {
            let end = (order.count * percent + 99) / 100
            guard end > taken else { continue }
            waves.append(Array(order[taken..<end]))
            taken = end
        }
        self.waves = waves
    }
}
