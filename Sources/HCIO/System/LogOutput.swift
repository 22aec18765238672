import CLinux
import HCCore
import Synchronization

/// Standard error as a logger's sink: the lines of one turn of the loop go out in one system call.
///
/// What a turn logged is written before the loop waits again, so a crash loses at most the lines of the turn
/// that crashed. Lines from other threads are written at once.
package final class LogOutput: Sendable {
    package static let standardError = LogOutput()

    /// Beyond it a turn's lines are written without waiting for its end.
    private static let bufferBytesMax = 256 << 10

    private let lines = Mutex<[UInt8]>([])

    package func write(_ line: UnsafeRawBufferPointer) {
        guard Loop.shared.isOnThread else { return LogOutput.writeAll(line) }
        let (isFirst, isFull) = lines.withLock { lines in
            let isFirst = lines.isEmpty
            lines.append(contentsOf: line)
            return (isFirst, lines.count > LogOutput.bufferBytesMax)
        }
        if isFull {
            flush()
        } else if isFirst {
            LoopActor.assumeIsolated { Loop.shared.atEndOfTick { self.flush() } }
        }
    }

    /// Writes what is there: before the process exits.
    package func flush() {
        lines.withLock { lines in
            lines.withUnsafeBytes { LogOutput.writeAll($0) }
            lines.removeAll(keepingCapacity: true)
        }
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
