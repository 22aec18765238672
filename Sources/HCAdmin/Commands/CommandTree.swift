import HCIO

/// Every command there is, and how a command line finds its own.
@LoopActor
struct CommandTree {
    static let commands: [any Command.Type] = [
        TenantCreate.self, TenantList.self, TenantShow.self, TenantCors.self,
        TenantSetTier.self, TenantTop.self, TenantMove.self,
        MoveList.self, MoveShow.self, MoveAbort.self, MoveRevert.self, MoveFinalize.self,
        MoveVerify.self,
        MoveAgentCommand.self,
        ShardAdd.self, ShardList.self, ShardShow.self, ShardDrainCommand.self, ShardOpen.self,
        ShardRetire.self, ShardReconcile.self,
        ReplicaAdd.self, ReplicaSet.self, ReplicaRemove.self, ReplicaList.self,
        TierList.self, TierShow.self, TierApply.self, LimitsProbe.self,
        RebalanceCollect.self, RebalancePlanCommand.self, RebalanceApply.self,
        RebalanceSimulate.self,
        MigrateStatus.self, MigratePlanCommand.self, MigrateUp.self, MigrateAbort.self,
        MigrateDrift.self, MigrateDown.self, MigrateLint.self, MigrateSchema.self,
        MigrateSimulate.self,
        ConfigCheck.self, Capacity.self, DirectoryMeasure.self, DoctorCommand.self, DemoSeed.self,
    ]

    /// What a command line asks for.
    enum Match {
        case command(any Command.Type, words: [String])
        /// Help on a group of commands, or on all of them.
        case help(String)
    }

    /// - Throws: `UsageError` when no command has these words.
    static func match(_ words: [String]) throws(UsageError) -> Match {
        let path = Array(words.prefix { !$0.hasPrefix("-") })
        let found =
            commands
            .filter { path.starts(with: $0.specification.path) }
            .max { $0.specification.path.count < $1.specification.path.count }
        if let found {
            return .command(found, words: Array(words.dropFirst(found.specification.path.count)))
        }
        let group = path.first == "help" ? Array(path.dropFirst()) : path
        let members = commands.filter { $0.specification.path.starts(with: group) }
        guard !members.isEmpty else {
            let known = Set(commands.compactMap { $0.specification.path.first }).sorted()
            throw UsageError(
                "there is no command '\(group.joined(separator: " "))'; commands: "
                    + known.joined(separator: ", "))
        }
        if words.isEmpty || path.first == "help" || words.contains("--help") || words.contains("-h")
        {
            return .help(help(on: group, members))
        }
        throw UsageError(
            group.isEmpty
                ? "unknown option '\(words[0])'"
                : "'\(group.joined(separator: " "))' needs one of: "
                    + members.compactMap { $0.specification.path.last }.joined(separator: ", "),
            command: group)
    }

    private static func help(on group: [String], _ members: [any Command.Type]) -> String {
        var text = ""
        if group.isEmpty {
            text += "hc-admin: provisions, migrates and inspects the clinics of an HC platform.\n\n"
        }
        text +=
            "Usage: hc-admin \((group + ["COMMAND"]).joined(separator: " ")) [options]\n\nCommands:\n"
        text += HelpText.columns(
            members.map { ($0.specification.path.joined(separator: " "), $0.specification.summary) }
        )
        text += """

            Every command takes --json and --help; what changes something takes --dry-run.
            Exit status: 0 done, 1 failed, 2 usage, 3 refused by a check, 4 not found, 5 conflict.
            The configuration is the file named by HC_CONFIG, else .local/hc.json.

            """
        return text
    }
}
