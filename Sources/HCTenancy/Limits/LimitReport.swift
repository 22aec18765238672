package import HCCore

/// What is left of a clinic's limits, for `GET /v1/limits`.
package struct LimitReport: Sendable {
    package struct Entry: Sendable {
        /// What the rule is, and how many units only the safety lane may use: members of a JSON object.
        package let members: [UInt8]
        /// Units that an ordinary request may use now.
        package let remaining: Int
        /// Milliseconds until nothing counts as used, if nothing is taken.
        let resetMilliseconds: Int64
    }

    let plan: LimitPlan
    package let entries: [Entry]
    /// Redis is away: each process has its share, and `remaining` is that of this one.
    package let isLocal: Bool

    package var tier: String { plan.tier.name }

    /// Writes the members `tier`, `source` and `rules`, in one piece for each rule.
    package func write(to json: inout JSONWriter) {
        json.raw(atMost: plan.tierMember.count + 32) { text in
            text.append(plan.tierMember)
            // Whether this is what is left for the clinic, or for this server while the common count is away.
            text.append(isLocal ? ",\"source\":\"local\"" : ",\"source\":\"shared\"")
        }
        json.key("rules" as StaticString)
        json.beginArray()
        for entry in entries {
            json.raw(atMost: entry.members.count + 80) { text in
                text.append(UInt8(ascii: "{"))
                text.append(entry.members)
                text.append(",\"remaining\":")
                text.append(decimal: Int64(entry.remaining))
                text.append(",\"resetSeconds\":")
                text.append(decimal: (entry.resetMilliseconds + 999) / 1000)
                text.append(UInt8(ascii: "}"))
            }
        }
        json.endArray()
    }
}

extension LimitMachine {
    /// A question about all buckets of the request's clinic, account and address.
    ///
    /// - Parameter targets: of the request, also those whose rules say nothing about its class.
    /// - Returns: nil if everything is known well enough.
    func look(
        _ request: LimitRequest, _ targets: LimitTargets, olderThan age: Duration,
        now: MonotonicTime
    ) -> LimitFlight? {
        var questions: LimitQuestions?
        let oldest = (now - age).nanoseconds
        targets.forEachBucket { group, index in
            guard group.buckets[index].knownAt < oldest else { return }
            if questions == nil { questions = LimitQuestions(prefix: request.tenant.redisPrefix) }
            questions?.append(group, index, need: 0, want: 0)
        }
        return questions.map {
            LimitFlight(.look, $0, lane: .ordinary, sentAt: now.nanoseconds)
        }
    }

    /// - Parameter targets: as for `look`.
    func report(
        _ request: LimitRequest, _ targets: LimitTargets, now: MonotonicTime
    ) -> LimitReport {
        var entries: [LimitReport.Entry] = []
        var count = 0
        targets.forEachBucket { _, _ in count += 1 }
        entries.reserveCapacity(count)
        let time = now.nanoseconds
        let isLocal = isAway(at: now)
        targets.forEachBucket { group, index in
            let bucket = group.buckets[index]
            let remaining: Int64
            let reset: Int64
            if isLocal {
                let (share, measure) = share(of: bucket, now)
                remaining = share.available(measure, .ordinary)
                reset = share.wait(for: measure.capacity / LocalShare.unit, measure, .safety)
            } else {
                // Before it was asked for the first time nothing was used here; Redis may know better.
                let known = bucket.available(.ordinary, time) ?? bucket.shape.usable(.ordinary)
                remaining = known + bucket.balance(.ordinary, time)
                reset = bucket.untilFull(time)
            }
            entries.append(
                LimitReport.Entry(
                    members: bucket.rule.members, remaining: Int(remaining),
                    resetMilliseconds: reset))
        }
        return LimitReport(plan: request.plan, entries: entries, isLocal: isLocal)
    }
}
