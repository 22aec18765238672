extension LimitMachine {
    /// Every bound of the limits of one process.
    struct Limits {
        /// Groups of clinics, and of accounts and addresses: bounded apart, so that a flood of addresses forgets no
        /// clinic.
        var tenantsMax = 16_384
        var subjectsMax = 65_536
        /// Requests that wait for one group; more are asked exactly.
        var waitingMax = 1024
        var leaseLife = Duration.seconds(1)
        /// How long an answer "there is none" is believed.
        var knowledgeLife = Duration.milliseconds(100)
        /// Time between questions for a bucket that had less than was wanted.
        var spacing = Duration.milliseconds(5)
        /// A lease that was not used for so long is given back.
        var idleAfter = Duration.milliseconds(250)
        var roundsMax = 3
        var graceMax = Duration.seconds(30)
        var rearmAfter = Duration.seconds(60)
        /// After a failure Redis is left alone for as long as this.
        var restAfterFailure = Duration.seconds(1)
    }
}
