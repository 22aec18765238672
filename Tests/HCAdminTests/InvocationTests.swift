import Testing

@testable import HCAdmin

private let specification = CommandSpecification(
    path: ["tenant", "create"], summary: "Creates a clinic.",
    arguments: [.init(name: "SLUG", help: "The clinic's name in its hostname.")],
    options: [.value("name", "NAME", "What people call it."), .value("tier", "TIER", "Its tier.")],
    changes: true, examples: ["tenant create hillview --name Hillview"])

@Suite struct InvocationTests {
    @Test("options and arguments may stand in any order")
    func order() throws {
        for words in [
            ["hillview", "--name", "Hill View", "--json"],
            ["--json", "--name=Hill View", "hillview"],
        ] {
            let invocation = try Invocation(specification, words: words)
            #expect(invocation.argument(0) == "hillview")
            #expect(invocation.option("name") == "Hill View")
            #expect(invocation.option("tier") == nil)
            #expect(invocation.wantsJSON)
            #expect(!invocation.isDryRun)
        }
    }

    @Test("an option of many values may be given again, and with commas")
    func values() throws {
        let specification = CommandSpecification(
            path: ["tenant", "cors"], summary: "Lets pages in.",
            arguments: [.init(name: "SLUG", help: "The clinic.")],
            options: [
                .values("allow", "ORIGIN", "Lets it in."), .values("remove", "ORIGIN", "Or not."),
            ],
            changes: true, examples: ["tenant cors sunrise"])
        let invocation = try Invocation(
            specification,
            words: [
                "sunrise", "--allow", "https://a.example", "--allow=https://b.example,http://c",
                "--dry-run",
            ])
        #expect(
            invocation.values("allow") == ["https://a.example", "https://b.example", "http://c"])
        #expect(invocation.values("remove") == [])
        #expect(invocation.isDryRun)
        #expect(throws: UsageError.self) {
            try Invocation(specification, words: ["sunrise", "--allow"])
        }
    }

    @Test("a word after -- is an argument, whatever it looks like")
    func terminator() throws {
        #expect(try Invocation(specification, words: ["--", "--json"]).argument(0) == "--json")
    }

    @Test(
        "what cannot be meant is refused",
        arguments: [
            ["--name"], ["hillview", "--nam", "x"], ["hillview", "extra"], [], ["hillview", "-x"],
            ["hillview", "--name", "a", "--name", "b"], ["hillview", "--json=yes"],
        ])
    func refused(words: [String]) {
        #expect(throws: UsageError.self) { try Invocation(specification, words: words) }
    }

    @Test("help names every argument and option, and shows the examples")
    func help() {
        let text = specification.helpText
        for part in [
            "SLUG", "--name NAME", "--tier TIER", "--dry-run", "--json",
            "hc-admin tenant create hillview",
        ] {
            #expect(text.contains(part), "\(part)")
        }
    }

    @Test("help needs no arguments")
    func helpAlone() throws {
        #expect(try Invocation(specification, words: ["--help"]).wantsHelp)
    }
}
