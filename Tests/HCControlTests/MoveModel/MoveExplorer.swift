/// Visits every state that a model can reach, breadth first: the first violation found is one of the shortest.
struct MoveExplorer {
    struct Finding {
        var violation: String
        /// What happened, one event a line, from the beginning.
        var trace: [String]

        var text: String { "\(violation)\n  " + trace.joined(separator: "\n  ") }
    }

    struct Result {
        var states: Int
        var transitions: Int
        var settled: Int
        var finding: Finding?
    }

    /// More states than this are a mistake in the model: it is to be finite and small.
    static let statesMax = 2_000_000

    /// Looks for a state or a transition that breaks an invariant; then, if there is none, for a state from which no
    /// continuation leads to a settled one.
    static func explore(_ model: MoveModel) -> Result {
        var worlds: [World] = []
        var numbers: [World.Key: Int32] = [:]
        var parents: [(from: Int32, event: MoveModel.Event)] = []
        // The edges backwards, as lists threaded through one array.
        var edges: [(from: Int32, next: Int32)] = []
        var edgesInto: [Int32] = []
        var finding: Finding?

        func trace(_ number: Int32, and last: MoveModel.Event? = nil) -> [String] {
            var events = last.map { [$0] } ?? []
            var number = number
            while number != 0 {
                let (from, event) = parents[Int(number)]
                events.append(event)
                number = from
            }
            return events.reversed().map(\.text)
        }

        func visit(_ world: World, from: Int32, by event: MoveModel.Event) -> Int32 {
            let key = world.key
            if let number = numbers[key] { return number }
            let number = Int32(worlds.count)
            numbers[key] = number
            worlds.append(world)
            parents.append((from, event))
            edgesInto.append(-1)
            return number
        }

        _ = visit(model.scenario.start, from: 0, by: .apply)
        var current: Int32 = 0
        while Int(current) < worlds.count, finding == nil {
            precondition(worlds.count < statesMax, "the model is not finite")
            let world = worlds[Int(current)]
            if let violation = model.violation(world) {
                finding = Finding(violation: violation, trace: trace(current))
                break
            }
            model.steps(from: world) { step in
                guard finding == nil else { return }
                if let violation = step.violation {
                    finding = Finding(
                        violation: violation, trace: trace(current, and: step.event))
                    return
                }
                let number = visit(step.world, from: current, by: step.event)
                edges.append((current, edgesInto[Int(number)]))
                edgesInto[Int(number)] = Int32(edges.count - 1)
            }
            current += 1
        }
        var settled = 0
        if finding == nil {
            var reaches = [Bool](repeating: false, count: worlds.count)
            var pending: [Int32] = []
            for (number, world) in worlds.enumerated() where model.isSettled(world) {
                settled += 1
                reaches[number] = true
                pending.append(Int32(number))
            }
            while let number = pending.popLast() {
                var edge = edgesInto[Int(number)]
                while edge >= 0 {
                    let (from, next) = edges[Int(edge)]
                    if !reaches[Int(from)] {
                        reaches[Int(from)] = true
                        pending.append(from)
                    }
                    edge = next
                }
            }
            if let stuck = reaches.firstIndex(of: false) {
                finding = Finding(
                    violation: "the clinic is stuck: nothing that may follow lets it be served",
                    trace: trace(Int32(stuck)))
            }
        }
        return Result(
            states: worlds.count, transitions: edges.count, settled: settled, finding: finding)
    }
}

extension MoveModel.Event {
    var text: String {
        func shard(_ number: Int) -> String { number == 0 ? "A" : "B" }
        return switch self {
        case .act(let mover, let action, let refused):
            "mover \(mover + 1): \(action)" + (refused ? " — refused" : "")
        case .giveUpInstead(let mover): "mover \(mover + 1) breaks off"
        case .loseAnswer(let mover, let action): "mover \(mover + 1): \(action) — answer lost"
        case .leaveBehind(let mover, let action):
            "mover \(mover + 1): \(action) — no answer, and not done yet"
        case .ghostActs(let action, let refused):
            "the late \(action) is carried out" + (refused ? " — refused" : "")
        case .takeOver(let mover): "mover \(mover + 1) takes the move over"
        case .wantAbort: "an operator asks for the abort"
        case .snapshot(let writer): "writer \(writer + 1) takes a snapshot on A"
        case .enter(let writer, let place): "writer \(writer + 1) asks to enter \(shard(place))"
        case .commit(let writer, let place): "writer \(writer + 1) commits on \(shard(place))"
        case .apply: "the stream applies a change"
        case .flush: "the destination flushes"
        case .syncStandby(let place): "the standby of \(shard(place)) catches up"
        case .crash(let place): "\(shard(place)) crashes and recovers"
        case .failOver(let place): "\(shard(place)) fails over to its standby"
        case .reconcile(let place): "\(shard(place)) is reconciled"
        case .recall(let place):
            "the clinic is taken back from \(shard(place)), which has forgotten it"
        }
    }
}
