import HCTesting
import Testing

extension EndToEnd {
    /// What the operator handbook tells people to type, typed.
    @Suite struct HandbookTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        /// The lines of the `sh` blocks of a page of the handbook.
        private static func commands(of page: String) throws -> [String] {
            var commands: [String] = []
            var isShell = false
            for line in try Repository.contents(of: Repository.path("admin/\(page)"))
                .split(separator: "\n", omittingEmptySubsequences: false)
            {
                if line.hasPrefix("```") {
                    isShell = line == "```sh"
                } else if isShell, !line.isEmpty {
                    commands.append(String(line))
                }
            }
            return commands
        }

        @Test(
            "every command of the operator handbook works as it is written",
            arguments: [("README.md", 10), ("moves.md", 5), ("shards.md", 6)])
        func commandsWork(_ page: String, atLeast count: Int) throws {
            let commands = try HandbookTests.commands(of: page)
            #expect(commands.count >= count)
            // The handbook shows, changes and moves one clinic: another test may have opened it already.
            _ = try platform.admin([
                "tenant", "create", "hillview", "--name", "Hillview", "--shard", "s1",
            ])
            for command in commands {
                let program = "deploy/local/hc-admin "
                guard command.hasPrefix(program) else {
                    Issue.record("not a command of hc-admin: \(command)")
                    continue
                }
                let arguments = words(String(command.dropFirst(program.count)))
                let (status, output) = try platform.admin(arguments)
                if arguments.starts(with: ["tenant", "create"]) {
                    #expect(status == 5, "\(command): \(output)")
                } else {
                    #expect(status == 0, "\(command): \(output)")
                }
            }
        }

        @Test("every command has help with examples, and the help of the whole names them all")
        func help() throws {
            let (status, overview) = try platform.admin(["--help"])
            #expect(status == 0)
            let commands = overview.split(separator: "\n")
                .drop { $0 != "Commands:" }.dropFirst()
                .prefix { $0.hasPrefix("  ") }
                .map { $0.dropFirst(2).split(separator: "  ").first.map(String.init) ?? "" }
            #expect(commands.count >= 13)
            for command in commands {
                let (status, text) = try platform.admin(words(command) + ["--help"])
                #expect(status == 0)
                for part in ["Usage: hc-admin \(command)", "Options:", "Examples:"] {
                    #expect(text.contains(part), "\(command): \(part)")
                }
            }
        }

        /// Splits at blanks outside of double quotes, as a shell does.
        private func words(_ line: String) -> [String] {
            var words: [String] = []
            for (index, part) in line.split(separator: "\"", omittingEmptySubsequences: false)
                .enumerated()
            {
                if index % 2 == 1 {
                    words.append(String(part))
                } else {
                    words += part.split(separator: " ").map(String.init)
                }
            }
            return words
        }
    }
}
