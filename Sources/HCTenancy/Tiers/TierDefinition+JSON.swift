package import HCCore

extension TierDefinition {
    /// As in the file and in the control database. Two definitions are equal if their JSON is.
    package var json: JSONValue {
        [
            "name": .string(name),
            "weight": .integer(Int64(weight)),
            "rates": .array(rates.map(\.json)),
            "safetyReserve": .integer(Int64(safetyReservePercent)),
            "pool": [
                "inFlightMax": .integer(Int64(pool.inFlightMax)),
                "waitingMax": .integer(Int64(pool.waitingMax)),
                "queueTimeout": .string(Quantity.text(pool.queueTimeout)),
                "dedicatedConnections": .integer(Int64(pool.dedicatedConnections)),
            ],
            "timeouts": [
                "statement": .string(Quantity.text(timeouts.statement)),
                "lock": .string(Quantity.text(timeouts.lock)),
                "transaction": .string(Quantity.text(timeouts.transaction)),
            ],
            "cache": [
                "bytesMax": .string(Quantity.text(bytes: cache.bytesMax)),
                "entriesMax": .integer(Int64(cache.entriesMax)),
            ],
            "parkedRequestsMax": .integer(Int64(parkedRequestsMax)),
        ]
    }

    /// Reads `{"tiers":[{"name":…,"rates":[…],…},…]}`, in which every member must be known.
    ///
    /// - Throws: `TierFileError` with every problem of the file.
    package static func parseFile(_ bytes: [UInt8]) throws(TierFileError) -> [TierDefinition] {
        let value: JSONValue
        do {
            value = try JSONReader.parse(bytes)
        } catch {
            throw TierFileError(problems: ["the file is no JSON: \(error)"])
        }
        guard let file = value.asObject, let entries = file["tiers"]?.asArray else {
            throw TierFileError(problems: [#"the file is not of the form {"tiers":[…]}"#])
        }
        let problems = TierProblems()
        for name in file.names where name != "tiers" { problems.add(name, "is not known") }
        if entries.isEmpty { problems.add("tiers", "lists none") }
        if entries.count > countMax {
            problems.add("tiers", "lists \(entries.count), more than \(countMax)")
        }
        var tiers: [TierDefinition] = []
        var names: Set<String> = []
        for (index, entry) in entries.enumerated() {
            let path = "tiers[\(index)]"
            if let name = entry["name"]?.asString, !names.insert(name).inserted {
                problems.add("\(path).name", "'\(name)' is there twice")
            }
            if let section = TierSection(entry, path, problems, isStrict: true) {
                tiers.append(TierDefinition(section))
            }
        }
        guard problems.all.isEmpty else { throw TierFileError(problems: problems.all) }
        return tiers
    }

    package static let countMax = 100

    /// Reads one definition as in the control database: also that of an older program; members that a newer one
    /// has added are passed over.
    ///
    /// - Throws: `TierFileError` with every problem.
    package init(json: JSONValue) throws(TierFileError) {
        let problems = TierProblems()
        guard let section = TierSection(json, "tier", problems, isStrict: false) else {
            throw TierFileError(problems: problems.all)
        }
        self =
            section.has("unitsPerSecond")
            ? TierDefinition(flat: section) : TierDefinition(section)
        guard problems.all.isEmpty else { throw TierFileError(problems: problems.all) }
    }

    /// Good only if no problem was added.
    private init(_ tier: TierSection) {
        tier.know(
            "name", "weight", "rates", "safetyReserve", "pool", "timeouts", "cache",
            "parkedRequestsMax")
        name = tier.name("name")
        weight = tier.integer("weight", in: TierDefinition.weights, default: 1)
        safetyReservePercent = tier.integer(
            "safetyReserve", in: TierDefinition.safetyReserves, default: 0)
        pool = TierPool(tier.section("pool"))
        timeouts = TierTimeouts(tier.section("timeouts"))
        cache = TierCache(tier.section("cache"))
        parkedRequestsMax = tier.integer(
            "parkedRequestsMax", in: TierDefinition.parkedRequests, default: 64)
        rates = []
        let rules = tier.sections("rates", countMax: RateRule.countMax)
        for rule in rules {
            let rule = RateRule(rule, reservePercent: safetyReservePercent)
            if rates.contains(where: { $0.name == rule.name }) {
                tier.problem("rates", "'\(rule.name)' is there twice")
            }
            rates.append(rule)
        }
        let unlimited = LimitClass.allCases.filter { kind in
            !rates.contains { $0.scope == .tenant && $0.covers(kind) }
        }
        if !rules.isEmpty, !unlimited.isEmpty {
            tier.problem(
                "rates",
                "no rule of scope tenant limits \(unlimited.map(\.rawValue).joined(separator: ", "))"
            )
        }
    }

    /// The form before rules: one bucket.
    private init(flat tier: TierSection) {
        self.init(
            name: tier.name("name"),
            weight: tier.integer("weight", in: TierDefinition.weights, default: 1),
            rates: [
                .bucket(
                    units: tier.integer("unitsPerSecond", in: 1...RateRule.unitsPerSecondMax),
                    burst: tier.integer(
                        "burstUnits", in: RequestCost.largest...RateRule.burstMax))
            ],
            pool: TierPool(
                inFlightMax: tier.integer("transactionsMax", in: TierPool.inFlight, default: 32)),
            parkedRequestsMax: tier.integer(
                "parkedRequestsMax", in: TierDefinition.parkedRequests, default: 64))
    }
}

extension RateRule {
    package var json: JSONValue {
        var object = JSONObject()
        object.set(.string(name), for: "name")
        object.set(.string(scope.rawValue), for: "scope")
        if let classes {
            // In the order of the enumeration, so that equal sets are equal texts.
            let names = LimitClass.allCases.filter(classes.contains).map(\.rawValue)
            object.set(.array(names.map { .string($0) }), for: "classes")
        }
        object.set(.string(algorithm.rawValue), for: "algorithm")
        object.set(.integer(Int64(units)), for: "units")
        object.set(.string(Quantity.text(window)), for: "per")
        if let burst { object.set(.integer(Int64(burst)), for: "burst") }
        return .object(object)
    }

    fileprivate init(_ rule: TierSection, reservePercent: Int) {
        rule.know("name", "scope", "classes", "algorithm", "units", "per", "burst")
        let algorithm: RateAlgorithm = rule.choice("algorithm", fallback: .tokenBucket)
        let windows = algorithm == .tokenBucket ? RateRule.bucketWindows : RateRule.windows
        let window = rule.duration("per", in: windows)
        let seconds = max(1, Int(window.inMilliseconds / 1000))
        self.init(
            name: rule.name("name"), scope: rule.choice("scope", fallback: .tenant),
            classes: rule.choices("classes"), algorithm: algorithm,
            units: rule.integer(
                "units", in: 1...min(RateRule.unitsPerSecondMax * seconds, RateRule.unitsMax)),
            per: window)
        if algorithm == .tokenBucket {
            burst = rule.integer("burst", in: 1...RateRule.burstMax)
        } else if rule.has("burst") {
            rule.problem("burst", "belongs to a token-bucket; a window allows its units at once")
        }
        // What the safety lane keeps is not there for an export.
        let reserve = scope == .tenant ? reservePercent : 0
        let needed = (largestCost * 100 + 99 - reserve) / (100 - reserve)
        if capacity < needed, !rule.hasProblem {
            rule.problem(
                algorithm == .tokenBucket ? "burst" : "units",
                "must be at least \(needed), or a request of \(largestCost) units would never pass"
                    + (reserve == 0 ? "" : " beside a safetyReserve of \(reserve) percent"))
        }
    }
}

extension TierPool {
    fileprivate init(_ pool: TierSection) {
        pool.know("inFlightMax", "waitingMax", "queueTimeout", "dedicatedConnections")
        let standard = TierPool()
        self.init(
            inFlightMax: pool.integer(
                "inFlightMax", in: TierPool.inFlight, default: standard.inFlightMax),
            waitingMax: pool.integer(
                "waitingMax", in: TierPool.waiting, default: standard.waitingMax),
            queueTimeout: pool.duration(
                "queueTimeout", in: TierPool.queueTimeouts, default: standard.queueTimeout),
            dedicatedConnections: pool.integer(
                "dedicatedConnections", in: TierPool.dedicated,
                default: standard.dedicatedConnections))
        if dedicatedConnections > inFlightMax, !pool.hasProblem {
            pool.problem(
                "dedicatedConnections",
                "\(dedicatedConnections) can never be used at once with an inFlightMax of \(inFlightMax)"
            )
        }
    }
}

extension TierTimeouts {
    fileprivate init(_ timeouts: TierSection) {
        timeouts.know("statement", "lock", "transaction")
        let standard = TierTimeouts()
        self.init(
            statement: timeouts.duration(
                "statement", in: TierTimeouts.range, default: standard.statement),
            lock: timeouts.duration("lock", in: TierTimeouts.range, default: standard.lock),
            transaction: timeouts.duration(
                "transaction", in: TierTimeouts.range, default: standard.transaction))
        guard !timeouts.hasProblem else { return }
        if lock > statement { timeouts.problem("lock", "is longer than statement") }
        if statement > transaction { timeouts.problem("statement", "is longer than transaction") }
    }
}

extension TierCache {
    fileprivate init(_ cache: TierSection) {
        cache.know("bytesMax", "entriesMax")
        let standard = TierCache()
        self.init(
            bytesMax: cache.size("bytesMax", in: TierCache.bytes, default: standard.bytesMax),
            entriesMax: cache.integer(
                "entriesMax", in: TierCache.entries, default: standard.entriesMax))
    }
}
