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
    private var openPlane: ControlPlane?

    /// Variables of the process, which win over the file.
    private let variables: [String: String]

    init(
        variables: [String: String], clocks: Clocks, operatorName: String,
        tell: @escaping @Sendable (String) -> Void
    ) {
        self.variables = variables
        configurationFile = PlatformConfiguration.path(environment: variables)
        self.clocks = clocks
        self.operatorName = operatorName
        self.tell = tell
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
        try MigrationCatalog.load(directory: directory ?? configuration().migrationsDirectory)
    }

    func close() async {
        await openPlane?.close()
        openPlane = nil
    }
}
