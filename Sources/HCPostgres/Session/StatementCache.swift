/// Which prepared statements a session has, least recently used first out.
///
/// Pure bookkeeping: it says what to send; the batch tells it afterwards what the server really did. A statement
/// is identified by the address of its text, which is a literal. PostgreSQL's prepared statements are not
/// transactional: one that was parsed stays when its transaction rolls back, and one whose Parse the server
/// skipped (because something before it in the pipeline failed) does not exist.
struct StatementCache {
    struct Statement {
        let id: UInt32
        /// The parameter types that it was prepared with; 0 where only nulls were seen.
        let types: [UInt32]
        var lastUse: UInt64
    }

    private let capacity: Int
    private var statements: [Int: Statement] = [:]
    private var uses: UInt64 = 0
    private var lastID: UInt32 = 0
    /// On the server, no longer here, not yet closed.
    private var abandoned: [UInt32] = []
    /// Nothing on the server is known any more.
    private var mustForgetAll = false

    init(capacity: Int) {
        precondition(capacity > 0, "a session needs at least one prepared statement")
        self.capacity = capacity
    }

    var count: Int { statements.count }

    /// What has to be sent first of all in the next batch.
    mutating func planHousekeeping(into steps: inout [BatchStep]) {
        if mustForgetAll {
            steps.append(.deallocateAll)
            return
        }
        for id in abandoned { steps.append(.deallocate(id)) }
        abandoned.removeAll(keepingCapacity: true)
    }

    /// The statement to execute for a text and parameter types, with the steps that must come before.
    /// - Returns: its id, and the types to prepare it with when it has to be.
    mutating func plan(
        address: Int, types: UnsafeBufferPointer<UInt32>, into steps: inout [BatchStep]
    ) -> (id: UInt32, types: [UInt32]?) {
        uses += 1
        let wanted: [UInt32]
        if let known = statements[address] {
            if Self.fits(known.types, types) {
                statements[address]?.lastUse = uses
                return (known.id, nil)
            }
            wanted = Self.merge(known.types, types)
            statements[address] = nil
            steps.append(.deallocate(known.id))
        } else {
            wanted = Array(types)
            if statements.count >= capacity { evictOldest(into: &steps) }
        }
        lastID += 1
        statements[address] = Statement(id: lastID, types: wanted, lastUse: uses)
        steps.append(.prepare(lastID))
        return (lastID, wanted)
    }

    /// A null fits every type; a value fits its own.
    private static func fits(_ prepared: [UInt32], _ types: UnsafeBufferPointer<UInt32>) -> Bool {
        guard prepared.count == types.count else { return false }
        for index in types.indices where types[index] != 0 && types[index] != prepared[index] {
            return false
        }
        return true
    }

    private static func merge(_ prepared: [UInt32], _ types: UnsafeBufferPointer<UInt32>)
        -> [UInt32]
    {
        guard prepared.count == types.count else { return Array(types) }
        return zip(prepared, types).map { $1 == 0 ? $0 : $1 }
    }

    /// Runs on a miss with a full cache only: a scan is far below the cost of the Parse that follows.
    private mutating func evictOldest(into steps: inout [BatchStep]) {
        guard let oldest = statements.min(by: { $0.value.lastUse < $1.value.lastUse }) else {
            return
        }
        statements[oldest.key] = nil
        steps.append(.deallocate(oldest.value.id))
    }

    /// A batch has ended: its first `completed` steps ran, the others had no effect.
    mutating func settle(_ steps: [BatchStep], completed: Int) {
        guard completed < steps.count else {
            if mustForgetAll, steps.contains(.deallocateAll) { mustForgetAll = false }
            return
        }
        for (index, step) in steps.enumerated() {
            switch step {
            case .deallocateAll where index < completed:
                mustForgetAll = false
            case .prepare(let id) where index >= completed:
                if let entry = statements.first(where: { $0.value.id == id }) {
                    statements[entry.key] = nil
                }
            case .deallocate(let id) where index >= completed:
                if let parse = steps.firstIndex(of: .prepare(id)), parse >= completed { continue }
                abandoned.append(id)
            default: break
            }
        }
    }

    /// The server does not know (or cannot use) what we think it has: start over.
    /// Names are never used twice, so whatever is left on the server can do no harm until it is closed.
    mutating func forgetAll() {
        statements.removeAll(keepingCapacity: true)
        abandoned.removeAll()
        mustForgetAll = true
    }
}

/// One message group of a pipeline, in the order in which the server answers.
enum BatchStep: Hashable {
    case begin
    case deallocateAll
    case deallocate(UInt32)
    case prepare(UInt32)
    /// Index into the call's queries.
    case execute(Int)
    case commit
    case rollback
}
