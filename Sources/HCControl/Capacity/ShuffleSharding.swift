/// Which of a fleet's pods a load balancer sends a clinic's requests to: `width` of them, chosen by the clinic's
/// host. See `admin/capacity.md`.
///
/// Rendezvous hashing: each pod gets a score for the host, and the highest scores win. Whoever knows the names of the
/// pods gets the same answer, without a table; a pod that goes is replaced for the clinics that had it, by one pod
/// each, and for nobody else; and one that comes takes over only what is now its own.
package struct ShuffleSharding: Sendable {
    package let pods: [String]
    package let width: Int

    /// - Precondition: names are unique; `width` is 1 to their count.
    package init(pods: [String], width: Int) {
        precondition(Set(pods).count == pods.count, "a pod has a name of its own")
        precondition((1...max(1, pods.count)).contains(width), "a clinic has at least one pod")
        self.pods = pods
        self.width = width
    }

    /// The pods of a host, the best first: later ones are for when the first do not answer.
    ///
    /// - Parameter host: lower case, without port.
    package func pods(of host: String) -> [String] {
        let scored = pods.map { (pod: $0, score: ShuffleSharding.score(host: host, pod: $0)) }
        return scored.sorted { left, right in
            left.score != right.score ? left.score > right.score : left.pod < right.pod
        }.prefix(width).map(\.pod)
    }

    /// FNV-1a of 64 bits over `host`, a zero byte and `pod`, then the finalizer of SplitMix64: FNV alone mixes the
    /// last bytes too little for names that differ in their last digit.
    package static func score(host: String, pod: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
        for byte in host.utf8 { add(byte) }
        add(0)
        for byte in pod.utf8 { add(byte) }
        hash = (hash ^ (hash >> 30)) &* 0xbf58_476d_1ce4_e5b9
        hash = (hash ^ (hash >> 27)) &* 0x94d0_49bb_1331_11eb
        return hash ^ (hash >> 31)
    }

    /// A width that leaves few clinics sharing all pods, and each enough pods to bear the loss of some.
    package static func defaultWidth(pods: Int) -> Int { pods < 8 ? min(2, max(1, pods)) : 4 }

    // MARK: Arithmetic

    /// How many different sets of pods there are: C(n, k). A Double, for 200 choose 100 is no Int.
    package static func combinations(_ n: Int, _ k: Int) -> Double {
        guard (0...n).contains(k) else { return 0 }
        var product = 1.0
        for step in 0..<min(k, n - k) { product *= Double(n - step) / Double(step + 1) }
        return product.rounded()
    }

    /// Share of other clinics that have exactly `shared` pods in common with one clinic: hypergeometric.
    package static func share(pods n: Int, width k: Int, shared: Int) -> Double {
        combinations(k, shared) * combinations(n - k, k - shared) / combinations(n, k)
    }

    /// Share of the other clinics all of whose pods a clinic takes with it when it takes all of its own.
    package static func fullyHit(pods n: Int, width k: Int) -> Double { 1 / combinations(n, k) }

    /// Share of the other clinics that lose at least one pod then: slower, not gone.
    package static func partlyHit(pods n: Int, width k: Int) -> Double {
        1 - share(pods: n, width: k, shared: 0)
    }

    /// Spread of the load over the pods, as standard deviation by mean, when so many clinics of equal load are each
    /// spread evenly over their pods.
    package static func imbalance(pods n: Int, width k: Int, clinics: Int) -> Double {
        ((Double(n) / Double(k) - 1) / Double(max(1, clinics))).squareRoot()
    }

    /// Share of cached reads that a process answers from its own memory, if one key is asked for `requests` times
    /// in the life of an entry, at random times, by any of `processes` alike: each fill is followed by
    /// `requests / processes` hits on average.
    package static func hitRate(requests: Double, processes: Int) -> Double {
        let each = requests / Double(max(1, processes))
        return each / (1 + each)
    }
}
