/// With which schemas of one kind of database a program works.
///
/// What comes after `highest` was made when the program was there already. It adds (an expand) unless the ledger says
/// otherwise, so the program goes on: `SchemaState.servesFrom` is what a contract raises.
package struct SchemaRange: Hashable, Sendable, CustomStringConvertible {
    /// The first migration that has everything that the program uses.
    package let lowest: Int
    /// The last migration that the program knows.
    package let highest: Int

    package init(lowest: Int, highest: Int) {
        precondition(0 < lowest && lowest <= highest, "a range of versions")
        self.lowest = lowest
        self.highest = highest
    }

    /// Of this program. Whoever adds a migration raises `highest`; whoever uses what it brings raises `lowest` too.
    package static let control = SchemaRange(lowest: 8, highest: 9)
    package static let shard = SchemaRange(lowest: 5, highest: 9)

    /// Why the program must not work with a database; nil: it may.
    package func refusal(of state: SchemaState) -> SchemaRefusal? {
        if state.version < lowest { return .behind(version: state.version, lowest: lowest) }
        if state.servesFrom > highest {
            return .ahead(servesFrom: state.servesFrom, highest: highest)
        }
        return nil
    }

    package var description: String { lowest == highest ? "\(highest)" : "\(lowest)-\(highest)" }
}

/// What the ledger of a database says.
package struct SchemaState: Hashable, Sendable {
    /// The last migration that was applied.
    package let version: Int
    /// The migration that a program must know at least: what that one took away is gone.
    package let servesFrom: Int

    package init(version: Int, servesFrom: Int = 1) {
        self.version = version
        self.servesFrom = servesFrom
    }
}

/// Why a program does not work with a database.
package enum SchemaRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// The database lacks what the program uses.
    case behind(version: Int, lowest: Int)
    /// The database has lost what the program uses.
    case ahead(servesFrom: Int, highest: Int)

    /// What is the matter, and what to do about it.
    package var description: String {
        switch self {
        case .behind(let version, let lowest):
            "its schema is at version \(version), this program needs \(lowest): run 'hc-admin migrate up'"
        case .ahead(let servesFrom, let highest):
            "its schema is for programs that know version \(servesFrom), this one knows \(highest): start the newer release"
        }
    }
}
