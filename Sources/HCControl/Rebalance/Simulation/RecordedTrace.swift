package import HCCore
import HCTenancy

/// Load as it was recorded, in lines of JSON (`admin/rebalancing.md` has the format): the shards, the clinics in their
/// first places, and then, in the order of time, what clinics used from a moment on.
///
///     {"shard":"s1","capacity":{"execution":8,"disk":5e11},"weightMax":1000}
///     {"clinic":"0190…","shard":"s1"}
///     {"at":0,"clinic":"0190…","load":{"execution":0.2,"disk":4e9}}
package struct RecordedTrace: LoadTrace {
    package struct Limits: Sendable {
        package static let bytesMax = 1 << 30
        static let linesMax = 16_000_000
        static let shardsMax = 10_000
        static let clinicsMax = 1_000_000
    }

    private struct Event {
        var at: Int
        var clinic: Int
        var load: LoadVector
    }

    package private(set) var fleet = RebalanceFleet(shards: [], clinics: [])
    /// When it was begun to be recorded, if it says so.
    private(set) var began: Timestamp?
    private var events: [Event] = []
    private var next = 0
    private var present: [LoadVector] = []
    private var shardIndexes: [String: Int] = [:]
    private var clinicIndexes: [TenantID: Int] = [:]
    private var groups: [String: Int] = [:]

    /// - Parameter isComplete: false for one that is still being recorded: it may have one moment only.
    /// - Throws: `RebalanceFormatError` naming the line.
    package init(_ text: [UInt8], isComplete: Bool = true) throws(RebalanceFormatError) {
        var number = 0
        for line in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            guard number <= Limits.linesMax else {
                throw RebalanceFormatError("the trace has more than \(Limits.linesMax) lines")
            }
            guard line.contains(where: { $0 > 0x20 }) else { continue }
            do {
                try read(try JSONReader.parse(line, limits: JSONLimits(bytesMax: 1 << 16)))
            } catch {
                throw RebalanceFormatError("line \(number): \(error)")
            }
        }
        let hasTime = !fleet.shards.isEmpty && !fleet.clinics.isEmpty && events.last?.at ?? 0 > 0
        guard hasTime || !isComplete else {
            throw RebalanceFormatError(
                "a trace has shards, clinics and loads of more than one moment")
        }
        let problems = fleet.problems
        guard problems.isEmpty else {
            throw RebalanceFormatError(problems.prefix(20).joined(separator: "\n"))
        }
        present = Array(repeating: LoadVector(), count: fleet.clinics.count)
    }

    private mutating func read(_ line: JSONValue) throws {
        if line["at"] != nil {
            try readLoad(line)
        } else if line["clinic"] != nil {
            try readClinic(line)
        } else if line["shard"] != nil {
            try readShard(line)
        } else if let text = line["began"]?.asString, let time = Timestamp(rfc3339: text) {
            began = time
        } else {
            throw RebalanceFormatError("it is no shard, no clinic and no load")
        }
    }

    private mutating func readShard(_ line: JSONValue) throws {
        guard let id = line["shard"]?.asString, ShardRegistry.isIdentifier(id) else {
            throw RebalanceFormatError("'shard' is no name of a shard")
        }
        guard shardIndexes[id] == nil else {
            throw RebalanceFormatError("shard \(id) comes twice")
        }
        guard fleet.shards.count < Limits.shardsMax else {
            throw RebalanceFormatError("more than \(Limits.shardsMax) shards")
        }
        let weightMax = line["weightMax"] ?? .integer(1_000_000)
        guard let weightMax = weightMax.asInteger, (0...1_000_000).contains(weightMax) else {
            throw RebalanceFormatError("'weightMax' of shard \(id) is not 0 to 1000000")
        }
        let status = line["status"] ?? "open"
        guard
            let status = status.asString.flatMap(RebalanceFleet.Shard.Status.init(rawValue:))
        else {
            throw RebalanceFormatError("'status' of shard \(id) is not open, draining or closed")
        }
        shardIndexes[id] = fleet.shards.count
        fleet.shards.append(
            RebalanceFleet.Shard(
                id: id, status: status,
                capacity: try LoadVector(
                    json: line["capacity"] ?? [:], what: "the capacity of shard \(id)"),
                weightMax: Int(weightMax), region: try text(line, "region") ?? "",
                dedicatedTo: try text(line, "dedicatedTo")))
    }

    private mutating func readClinic(_ line: JSONValue) throws {
        let id = try clinic(line)
        guard clinicIndexes[id] == nil else {
            throw RebalanceFormatError("clinic \(id) comes twice")
        }
        guard fleet.clinics.count < Limits.clinicsMax else {
            throw RebalanceFormatError("more than \(Limits.clinicsMax) clinics")
        }
        guard let shard = try shard(line, "shard") else {
            throw RebalanceFormatError("clinic \(id) has no 'shard'")
        }
        let weight = line["weight"] ?? 1
        guard let weight = weight.asInteger, (0...10_000).contains(weight) else {
            throw RebalanceFormatError("'weight' of clinic \(id) is not 0 to 10000")
        }
        let group = try text(line, "group").map { name in
            let index = groups[name] ?? groups.count
            groups[name] = index
            return index
        }
        clinicIndexes[id] = fleet.clinics.count
        fleet.clinics.append(
            RebalanceFleet.Clinic(
                id: id, shard: shard, load: LoadVector(), bytes: 0, weight: Int(weight),
                pin: try self.shard(line, "pin"), group: group, region: try text(line, "region"),
                dedicatedTo: try text(line, "dedicatedTo")))
    }

    private mutating func readLoad(_ line: JSONValue) throws {
        guard let at = line["at"]?.asInteger, (0...1_000_000_000).contains(at) else {
            throw RebalanceFormatError("'at' is no count of seconds since the start")
        }
        guard at >= events.last?.at ?? 0 else {
            throw RebalanceFormatError("'at' is before that of the line above")
        }
        let id = try clinic(line)
        guard let index = clinicIndexes[id] else {
            throw RebalanceFormatError("clinic \(id) was not introduced")
        }
        let load = try LoadVector(json: line["load"] ?? .null, what: "'load'")
        events.append(Event(at: Int(at), clinic: index, load: load))
    }

    private func clinic(_ line: JSONValue) throws(RebalanceFormatError) -> TenantID {
        guard let id = line["clinic"]?.asString.flatMap({ TenantID($0) }) else {
            throw RebalanceFormatError("'clinic' is no id of a clinic")
        }
        return id
    }

    private func shard(_ line: JSONValue, _ name: String) throws(RebalanceFormatError) -> Int? {
        guard let text = try text(line, name) else { return nil }
        guard let index = shardIndexes[text] else {
            throw RebalanceFormatError("shard '\(text)' was not introduced")
        }
        return index
    }

    private func text(_ line: JSONValue, _ name: String) throws(RebalanceFormatError) -> String? {
        guard let value = line[name], !value.isNull else { return nil }
        guard let text = value.asString, (1...100).contains(text.utf8.count) else {
            throw RebalanceFormatError("'\(name)' is no text of 1 to 100 bytes")
        }
        return text
    }

    package var seconds: Int { events.last?.at ?? 0 }

    package var assumptions: [String] {
        [
            "recorded: \(fleet.clinics.count) clinics on \(fleet.shards.count) shards,"
                + " \(events.count) loads in \(seconds) s"
        ]
    }

    /// A step has the loads that hold at its beginning.
    package mutating func play(_ second: Int, step: Int, into loads: inout [LoadVector]) {
        while next < events.count, events[next].at <= second {
            present[events[next].clinic] = events[next].load
            next += 1
        }
        loads = present
    }
}

extension RebalanceFleet {
    /// The line of a trace that introduces a shard.
    func traceLine(of shard: Shard) -> JSONValue {
        [
            "shard": .string(shard.id), "status": .string(shard.status.rawValue),
            "capacity": shard.capacity.json, "weightMax": .integer(Int64(shard.weightMax)),
            "region": shard.region.isEmpty ? .null : .string(shard.region),
            "dedicatedTo": shard.dedicatedTo.map { .string($0) } ?? .null,
        ]
    }

    /// The line of a trace that introduces a clinic.
    func traceLine(of clinic: Clinic) -> JSONValue {
        [
            "clinic": .string(clinic.id.description),
            "shard": .string(shards[clinic.shard].id),
            "weight": .integer(Int64(clinic.weight)),
            "pin": clinic.pin.map { .string(shards[$0].id) } ?? .null,
            "group": clinic.group.map { .string("g\($0)") } ?? .null,
            "region": clinic.region.map { .string($0) } ?? .null,
            "dedicatedTo": clinic.dedicatedTo.map { .string($0) } ?? .null,
        ]
    }

    /// The lines of one moment.
    func traceLines(at second: Int, _ loads: [LoadVector]) -> [JSONValue] {
        zip(clinics, loads).map { clinic, load in
            [
                "at": .integer(Int64(second)), "clinic": .string(clinic.id.description),
                "load": load.json,
            ]
        }
    }

    /// What is to be added to a trace so that it has this moment too: everybody whom it does not know is introduced.
    ///
    /// - Parameters:
    ///   - recorded: the trace so far; empty: it begins now.
    ///   - loads: of each clinic, at present.
    /// - Throws: `RebalanceFormatError` for what is no trace that was recorded like this.
    package func traced(
        after recorded: [UInt8], _ loads: [LoadVector], now: Timestamp
    ) throws(RebalanceFormatError) -> [UInt8] {
        var (lines, began): ([JSONValue], Timestamp) = ([], now)
        var known = RebalanceFleet(shards: [], clinics: [])
        if recorded.isEmpty {
            lines.append(["began": .string(now.rfc3339)])
        } else {
            let trace = try RecordedTrace(recorded, isComplete: false)
            guard let start = trace.began else {
                throw RebalanceFormatError("it does not say when it began")
            }
            (began, known) = (start, trace.fleet)
        }
        let (ids, clinicIDs) = (Set(known.shards.map(\.id)), Set(known.clinics.map(\.id)))
        lines += shards.filter { !ids.contains($0.id) }.map(traceLine)
        lines += clinics.filter { !clinicIDs.contains($0.id) }.map(traceLine)
        lines += traceLines(at: Int((now - began) / .seconds(1)), loads)
        return Array(lines.map { $0.text + "\n" }.joined().utf8)
    }
}
