import HCCore
import HCIO
import HCTenancy

/// The configuration's text as it was at one moment, held open for the workers.
///
/// All workers of a generation read this text and not the file: one that dies while somebody edits the file is
/// replaced by one like the others, and what a roll starts with is what was validated.
@LoopActor
final class ConfigurationSnapshot {
    /// The file's name.
    let source: String
    let bytes: [UInt8]
    private let file: OwnedDescriptor

    var descriptor: Int32 { file.rawValue }

    init(source: String, bytes: [UInt8]) throws(SystemError) {
        self.source = source
        self.bytes = bytes
        file = try MemoryFile.make("hc-configuration", bytes)
    }

    /// Takes over one that the program before has left open.
    init(source: String, inherited descriptor: Int32) throws(SystemError) {
        self.source = source
        bytes = try MemoryFile.read(descriptor, bytesMax: PlatformConfiguration.bytesMax)
        file = OwnedDescriptor(descriptor)
        try file.setCloseOnExec()
    }

    /// - Throws: `ConfigurationError` with every problem.
    nonisolated func validate(
        environment: [String: String]
    ) throws(ConfigurationError) -> AppConfiguration {
        try AppConfiguration.load(bytes, source: source, environment: environment)
    }
}
