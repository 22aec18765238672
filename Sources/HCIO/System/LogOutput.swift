import CLinux

/// Standard error as a logger's sink: the lines of one turn of the loop go out in one system call.
///
/// What a turn logged is written before the loop waits again, so a crash loses at most the lines of the turn
/// that crashed. Lines from other threads are written at once.
package enum LogOutput {
    /// Beyond it a turn's lines are written without waiting for its end.
    private static let bufferBytesMax = 256 << 10

    /// The lines of this turn. Only the loop's thread touches them: `write` and `flush` ask whether they run there.
    private nonisolated(unsafe) static var lines: [UInt8] = []

    package static func write(_ line: UnsafeRawBufferPointer) {
        guard Loop.shared.isOnThread else { return writeAll(line) }
        let isFirst = lines.isEmpty
        lines.append(contentsOf: line)
        if lines.count > bufferBytesMax {
            flush()
        } else if isFirst {
            LoopActor.assumeIsolated { Loop.shared.atEndOfTick { flush() } }
        }
    }

    /// Writes what is there: before the process exits. Other threads than the loop's have written theirs already.
    package static func flush() {
        guard Loop.shared.isOnThread else { return }
        lines.withUnsafeBytes { writeAll($0) }
        lines.removeAll(keepingCapacity: true)
    }

    /// A log that nobody takes must not stop the clinic: what cannot be written is dropped.
    private static func writeAll(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty {
            let count = CLinux.write(2, rest.baseAddress, rest.count)
            if count < 0 {
                if hc_errno() == EINTR { continue }
                return
            }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
    }
}
