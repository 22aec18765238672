/// One psql that stays connected, with statements sent and answers read separately: so a test can let
/// a session wait for a lock and go on with another.
package final class SQLSession: Sendable {
    package struct Answer: Sendable {
        /// Rows as lines, with `|` between the columns, and messages.
        package var lines: [String]
        /// `00000`, or the SQLSTATE of the last statement.
        package var state: String
        /// The rows and messages as one text.
        package var text: String { lines.joined(separator: "\n") }
    }

    private let child: Subprocess
    private static let marker = "--answer--"

    package init(psql: String, _ conninfo: Conninfo) throws {
        child = try Subprocess(psql, ["-XqAt"], environment: conninfo.environment)
        try child.write("\\set VERBOSITY terse\n")
    }

    /// Sends statements without waiting for what they give.
    package func send(_ sql: String) throws {
        // An empty statement would overwrite the SQLSTATE.
        let end = sql.hasSuffix(";") || sql.hasPrefix("\\") ? "" : ";"
        try child.write("\(sql)\(end)\n\\echo \(Self.marker) :SQLSTATE\n")
    }

    /// Waits for the answer to the oldest statements that were sent.
    package func receive() throws -> Answer {
        var lines: [String] = []
        while let line = try child.readLine() {
            guard line.hasPrefix(Self.marker) else {
                lines.append(line)
                continue
            }
            return Answer(lines: lines, state: String(line.dropFirst(Self.marker.count + 1)))
        }
        throw FixtureError("psql ended: \(lines.joined(separator: "\n"))")
    }

    /// Sends statements and waits for what they give.
    @discardableResult
    package func run(_ sql: String) throws -> Answer {
        try send(sql)
        return try receive()
    }
}
