import HCCore

extension LimitMachine {
    /// A question about all buckets of a clinic, an account and an address.
    ///
    /// - Parameter targets: also those whose rules say nothing about the request's class.
    /// - Returns: nil if everything is known well enough.
    func look(
        _ clinic: TenantLimits, _ targets: LimitTargets, olderThan age: Duration,
        now: MonotonicTime
    ) -> LimitFlight? {
        var questions: LimitQuestions?
        let oldest = (now - age).nanoseconds
        targets.forEachBucket { group, index in
            guard group.buckets[index].knownAt < oldest else { return }
            if questions == nil { questions = LimitQuestions(prefix: clinic.redisPrefix) }
            questions?.append(group, index, need: 0, want: 0)
        }
        return questions.map {
            LimitFlight(.look, $0, lane: .ordinary, sentAt: now.nanoseconds)
        }
    }

    /// Writes what is left of the limits, for `GET /v1/limits`: the members `tier`, `source` and `rules`, in
    /// one piece for each rule.
    ///
    /// - Parameter targets: as for `look`.
    func report(
        _ clinic: TenantLimits, _ targets: LimitTargets, now: MonotonicTime,
        to json: inout JSONWriter
    ) {
        let isLocal = isAway(at: now)
        json.raw(atMost: clinic.plan.tierMember.count + 32) { text in
            text.append(clinic.plan.tierMember)
            // Whether this is what is left for the clinic, or for this server while the common count is away.
            text.append(isLocal ? ",\"source\":\"local\"" : ",\"source\":\"shared\"")
        }
        json.key("rules" as StaticString)
        json.beginArray()
        targets.forEachBucket { group, index in
            let (left, untilFull) =
                isLocal ? alone(index, of: group, now) : shared(index, of: group, now)
            group.plan.members.withText(group.firstRule + index) { members in
                json.raw(atMost: members.count + 80) { text in
                    text.append(UInt8(ascii: "{"))
                    text.append(members)
                    text.append(",\"remaining\":")
                    text.append(decimal: left)
                    text.append(",\"resetSeconds\":")
                    text.append(decimal: (untilFull + 999) / 1000)
                    text.append(UInt8(ascii: "}"))
                }
            }
        }
        json.endArray()
    }

    /// Units that an ordinary request may use now.
    private func shared(
        _ index: Int, of group: LimitGroup, _ now: MonotonicTime
    ) -> LeasedBucket.Outlook {
        // Before it was asked for the first time nothing was used here; Redis may know better.
        group.buckets[index].outlook(.ordinary, now.nanoseconds)
            ?? (group.buckets[index].shape.usable(.ordinary), 0)
    }

    /// The same of what this process has without Redis.
    private func alone(
        _ index: Int, of group: LimitGroup, _ now: MonotonicTime
    ) -> LeasedBucket.Outlook {
        let (share, measure) = share(of: index, in: group, now)
        return (
            share.available(measure, .ordinary),
            share.wait(for: measure.capacity / LocalShare.unit, measure, .safety)
        )
    }
}
