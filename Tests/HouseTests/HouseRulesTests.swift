import Testing

/// The rules are shown what they must find and what they must leave alone.
@Suite("The rules of the house see what they should")
struct HouseRulesTests {
    @Test("words and marks come without comments and strings")
    func tokens() {
        let text = #"""
            // Task {
            let a = "Task { \(b("x", #"y"#)) }" /* Task { /* nested */ */ + c
            let d = """
                public "quoted" \"""
                """
            e()
            """#
        let tokens = SwiftTokens(text)
        #expect(
            tokens.tokens.map(\.text) == [
                "let", "a", "=", "\"", "+", "c", "let", "d", "=", "\"", "e", "(", ")",
            ])
        #expect(tokens.tokens.last?.line == 6)
        #expect(tokens.tokens.first?.line == 2)
    }

    @Test("imports are found behind modifiers and kinds")
    func imports() {
        let text =
            "import A\npackage import B\n@testable import C\nimport struct D.E\n// import F\n"
        #expect(SwiftTokens(text).imports.map(\.module) == ["A", "B", "C", "D"])
    }

    @Test(
        "bare tasks, sleeps and queues are found",
        arguments: [
            "Task { }", "let t = Task { }", "Task(priority: .high) { }", "Task.init { }",
            "Task<Void, Never> { }", "_ = Task\n{ }", "Task.detached { }",
            "try await Task.sleep(for: .seconds(1))", "Task.immediate { }",
            "@concurrent func f() async {}", "DispatchQueue.main.async {}", "sleep(1)",
            "usleep(10)", "Glibc.sleep(1)", "let t = Task<Result<A, B>, Never>(operation: x)",
        ])
    func stray(text: String) {
        #expect(HouseRules.strayConcurrency(text).count == 1, "\(text)")
    }

    @Test(
        "types, checks and the loop's own sleep are left alone",
        arguments: [
            "var task: Task<Void, Never>?", "func f() -> Task<Void, Never> { x }",
            "try Task.checkCancellation()", "if Task.isCancelled {}", "await Task.yield()",
            "try await loop.sleep(until: x)", "try await sleep(for: .seconds(1))",
            "func sleep(until x: Deadline) {}", "// Task { }",
            "\"Task { }\"", "TaskGroup { }", "struct Task { }", "withTaskGroup { }",
            "func f(_ make: () -> Task<A, B>) { }",
        ])
    func ordered(text: String) {
        #expect(HouseRules.strayConcurrency(text) == [])
    }

    @Test("forwarding fields are found where they are read, and nowhere else")
    func forwarding() {
        for text in ["request.headers[.xForwardedFor]", "headers.single(.forwarded)"] {
            #expect(HouseRules.forwardingFields(text).count == 1, "\(text)")
        }
        for text in ["// .xForwardedFor", "\"X-Forwarded-For\"", "let forwarded = 1", "forwarded"] {
            #expect(HouseRules.forwardingFields(text) == [], "\(text)")
        }
    }

    @Test("the loop makes tasks, and does not sleep either")
    func loop() {
        #expect(
            HouseRules.strayConcurrency("Task(executorPreference: x) { }", isLoop: true) == [])
        #expect(HouseRules.strayConcurrency("Task.sleep(1)", isLoop: true).count == 1)
    }

    @Test("tasks of tests without an executor are found")
    func homeless() {
        for text in ["Task { }", "let t = Task { @LoopActor in f() }", "Task(priority: .low) { }"] {
            #expect(HouseRules.homelessTasks(text).count == 1, "\(text)")
        }
        for text in ["Task(executorPreference: Loop.shared) { }", "// Task { }", "\"Task { }\""] {
            #expect(HouseRules.homelessTasks(text) == [], "\(text)")
        }
    }

    @Test("public and open declarations are found, calls of open(2) are not")
    func access() {
        for text in ["public func f() {}", "open class A {}", "public init() {}", "  public var a"]
        {
            #expect(HouseRules.publicDeclarations(text).count == 1)
        }
        for text in [
            "open(path, flags)", "state = .open", "state = .open\n var a", "case open", "x.public",
            "// public",
        ] {
            #expect(HouseRules.publicDeclarations(text) == [])
        }
    }

    @Test("a swallowed write is found, a swallowed read is not")
    func writes() {
        for text in [
            "try? await connection.execute([q])", "_ = try? await pool.transaction(deadline: d) {",
            "try? stream.write(bytes)", "try? Files.replace(path, with: bytes)",
        ] {
            #expect(HouseRules.swallowedWrites(text).count == 1)
        }
        for text in ["let a = try? JSONReader.parse(b)", "try await c.execute(q)", "// try? write"]
        {
            #expect(HouseRules.swallowedWrites(text) == [])
        }
    }

    @Test("promises need a comment directly above")
    func promises() {
        let good = [
            "// Only the loop touches it.\nfinal class A: @unchecked Sendable {}",
            "/// A thing.\n@frozen\nfinal class A: @unchecked Sendable {}",
            "// Proof.\nfinal class A:\n    B,\n    @unchecked Sendable\n{}",
            "    // Proof.\n    nonisolated(unsafe) var a = 1", "// @unchecked Sendable",
            "@preconcurrency import A",
        ]
        for text in good { #expect(HouseRules.unprovedPromises(text) == [], "\(text)") }
        let bad = [
            "final class A: @unchecked Sendable {}",
            "// Far.\n\nfinal class A: @unchecked Sendable {}",
            "let b = 1\nnonisolated(unsafe) var a = 1",
            "// Late.\nvar b = 1\nnonisolated(unsafe) var a",
            "extension A: @preconcurrency B {}",
        ]
        for text in bad { #expect(HouseRules.unprovedPromises(text).count == 1, "\(text)") }
    }

    @Test("sleeping and skipped tests are found")
    func sleeping() {
        let bad = [
            "try await Task.sleep(for: .seconds(1))", "sleep(1)", "usleep(5)",
            "@Test(.disabled()) func a() {}", "@Test(\"x\", .enabled(if: y)) func a() {}",
            "withKnownIssue { }", "throw XCTSkip()",
        ]
        for text in bad { #expect(HouseRules.sleepingTests(text).count == 1, "\(text)") }
        for text in ["await loop.sleep(for: x)", "feature.enabled(x)", "// sleep(1)"] {
            #expect(HouseRules.sleepingTests(text) == [])
        }
    }

    @Test("marks of open work are found")
    func openWork() {
        #expect(HouseRules.openWork("a\n// TO" + "DO: b\n").map(\.line) == [2])
        #expect(HouseRules.openWork("// FIX" + "ME\n").count == 1)
        #expect(HouseRules.openWork("// done\n") == [])
    }

    @Test("a room sees what is below it, and only its own doors")
    func floors() {
        #expect(Floors.refusal(of: "HCCore", in: "HCIO") == nil)
        #expect(Floors.refusal(of: "HCIO", in: "HCCore") != nil)
        #expect(Floors.refusal(of: "HCCrypto", in: "HCIO") != nil)
        #expect(Floors.refusal(of: "HCRedis", in: "HCPostgres") != nil)
        #expect(Floors.refusal(of: "CLibPQ", in: "HCTenancy") != nil)
        #expect(Floors.refusal(of: "CLibPQ", in: "HCPostgres") == nil)
        #expect(Floors.refusal(of: "Foundation", in: "HCApp") != nil)
        #expect(Floors.refusal(of: "Glibc", in: "HCCore") != nil)
        #expect(Floors.refusal(of: "HCCore", in: "HCUtils") != nil)
        #expect(Floors.refusal(of: "HCClinic", in: "HCTesting") == nil)
        #expect(Floors.refusal(of: "HCApp", in: "HCTesting") != nil)
    }
}
