import HCControl
import HCCore
import HCIO
import HCTenancy

/// What a command works with: the configuration, opened connections, the person at the terminal.
@LoopActor
final class AdminEnvironment {
    let configurationFile: String
    let clocks: Clocks
    let operatorName: String
    let tell: @Sendable (String) -> Void
    /// Asks the person at the terminal and gives the answer's line; nil when there is no terminal.
    private let ask: (@Sendable (String) -> String?)?
    /// Writes to standard output at once, for a command that goes on; most return a report.
    let show: @Sendable (String) -> Void
    /// Whether a person looks at standard output.
    let isTerminal: Bool
    private var openPlane: ControlPlane?

    /// Variables of the process, which win over the file.
    private let variables: [String: String]

    init(
        variables: [String: String], clocks: Clocks, operatorName: String,
        tell: @escaping @Sendable (String) -> Void,
        ask: (@Sendable (String) -> String?)? = nil,
        show: @escaping @Sendable (String) -> Void = { _ in }, isTerminal: Bool = false
    ) {
        self.variables = variables
        configurationFile = PlatformConfiguration.path(environment: variables)
        self.clocks = clocks
        self.operatorName = operatorName
        self.tell = tell
        self.ask = ask
        self.show = show
        self.isTerminal = isTerminal
    }

    /// Shows what would be done and asks whether to do it. Without a terminal, with `--json` or with `--yes`
    /// nothing is asked: then the command itself is the answer.
    ///
    /// - Throws: `ControlError` (`declined`) for any answer but yes.
    func confirm(_ preview: [String], _ invocation: Invocation) throws(ControlError) {
        guard let ask, !invocation.wantsJSON, !invocation.flag("yes") else { return }
        for line in preview { tell(line) }
        let answer = ask("Apply this? [y/N] ") ?? ""
        guard ["y", "yes"].contains(answer.lowercased()) else {
            throw ControlError(.refused, code: "declined", "nothing was changed")
        }
    }

    /// - Throws: `ConfigurationError` with every problem of the file.
    func configuration() throws -> PlatformConfiguration {
        try PlatformConfiguration.load(file: configurationFile, environment: variables)
    }

    func plane() throws -> ControlPlane {
        if let openPlane { return openPlane }
        let plane = ControlPlane(
            configuration: try configuration(), clocks: clocks, operatorName: operatorName,
            progress: tell)
        openPlane = plane
        return plane
    }

    /// The migrations of `--migrations`, else those of the configuration.
    func catalog(_ directory: String?) throws -> MigrationCatalog {
        try MigrationCatalog.load(directory: migrationsDirectory(directory))
    }

    func migrationsDirectory(_ directory: String?) throws -> String {
        try directory ?? configuration().migrationsDirectory
    }

    /// Where programs are looked for.
    var programPath: String? { variables["PATH"] }

    func close() async {
        await openPlane?.close()
        openPlane = nil
    }
}
