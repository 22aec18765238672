internal import CLinux

/// posix_spawn with everything that a clean start of a child takes.
enum Spawn {
    static func run(
        path: String, arguments: [String], environment: [String],
        descriptors: [(from: Int32, to: Int32)], ownGroup: Bool
    ) throws(SystemError) -> Int32 {
        precondition(
            Set(descriptors.map(\.to)).count == descriptors.count
                && descriptors.allSatisfy { $0.to >= 0 },
            "each descriptor of the child has a number of its own")
        let first = max(2, descriptors.map(\.to).max() ?? 2) + 1
        var actions = posix_spawn_file_actions_t()
        try SystemCall.makeReturningErrno("posix_spawn_file_actions_init") {
            posix_spawn_file_actions_init(&actions)
        }
        defer { posix_spawn_file_actions_destroy(&actions) }
        // Each is first duplicated above all targets. So no dup2 overwrites what a later one reads, and
        // none has equal numbers, which would leave close-on-exec set.
        var copies: [Int32] = []
        defer { for copy in copies { close(copy) } }
        for (from, to) in descriptors {
            let copy = try SystemCall.make("fcntl(F_DUPFD_CLOEXEC)") {
                hc_fcntl(from, F_DUPFD_CLOEXEC, first)
            }
            copies.append(copy)
            try SystemCall.makeReturningErrno("posix_spawn_file_actions_adddup2") {
                posix_spawn_file_actions_adddup2(&actions, copy, to)
            }
        }
        // What a library opened without close-on-exec does not get into the child either.
        try SystemCall.makeReturningErrno("posix_spawn_file_actions_addclosefrom_np") {
            posix_spawn_file_actions_addclosefrom_np(&actions, first)
        }
        for number in 3..<first where !descriptors.contains(where: { $0.to == number }) {
            try SystemCall.makeReturningErrno("posix_spawn_file_actions_addclose") {
                posix_spawn_file_actions_addclose(&actions, number)
            }
        }
        var attributes = posix_spawnattr_t()
        try SystemCall.makeReturningErrno("posix_spawnattr_init") {
            posix_spawnattr_init(&attributes)
        }
        defer { posix_spawnattr_destroy(&attributes) }
        try setAttributes(&attributes, ownGroup: ownGroup)

        var pid: pid_t = 0
        try withCStrings(arguments) { arguments throws(SystemError) in
            try withCStrings(environment) { environment throws(SystemError) in
                try SystemCall.makeReturningErrno("posix_spawn") {
                    posix_spawn(&pid, path, &actions, &attributes, arguments, environment)
                }
            }
        }
        return pid
    }

    private static func setAttributes(
        _ attributes: inout posix_spawnattr_t, ownGroup: Bool
    ) throws(SystemError) {
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        try SystemCall.makeReturningErrno("posix_spawnattr_setsigmask") {
            posix_spawnattr_setsigmask(&attributes, &none)
        }
        try SystemCall.makeReturningErrno("posix_spawnattr_setsigdefault") {
            posix_spawnattr_setsigdefault(&attributes, &all)
        }
        var flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
        if ownGroup { flags |= POSIX_SPAWN_SETPGROUP }
        try SystemCall.makeReturningErrno("posix_spawnattr_setflags") {
            posix_spawnattr_setflags(&attributes, Int16(flags))
        }
    }

    /// A NULL-terminated array of C strings, valid during `body`.
    static func withCStrings(
        _ texts: [String],
        _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws(SystemError) -> Void
    ) throws(SystemError) {
        var pointers: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        try body(pointers)
    }
}
