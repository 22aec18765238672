import CLinux
import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite(.onLoop) @LoopActor struct SignalTests {
    @Test("signals are told on the loop, until the watch is closed")
    func watch() async throws {
        var told: [Int32] = []
        let both = Waiter<Void>()
        let watch = try Signals.watch([SIGUSR1, SIGUSR2]) { signal in
            told.append(signal)
            if told.count == 2 { both.succeed(()) }
        }
        // To this thread, where they are blocked: the test runner's other threads do not block them.
        #expect(pthread_kill(pthread_self(), SIGUSR1) == 0)
        #expect(pthread_kill(pthread_self(), SIGUSR2) == 0)
        try await both.wait(until: .soon)
        #expect(Set(told) == [SIGUSR1, SIGUSR2])
        watch.close()
        watch.close()
        // A blocked signal that nobody watches waits for the next watch.
        #expect(pthread_kill(pthread_self(), SIGUSR1) == 0)
        try await Loop.shared.lookAround()
        #expect(told.count == 2)
        let later = Waiter<Int32>()
        let next = try Signals.watch([SIGUSR1]) { later.succeed($0) }
        #expect(try await later.wait(until: .soon) == SIGUSR1)
        next.close()
    }
}

@Suite(.onLoop) @LoopActor struct ChildProcessTests {
    /// Runs a shell script with descriptor 1 on a pipe and gives what it wrote.
    private func output(
        of script: String, environment: [String] = [],
        passing others: [(from: Int32, to: Int32)] = []
    ) async throws -> (text: String, status: ChildProcess.ExitStatus) {
        let (mine, its) = try OwnedDescriptor.socketPair().releaseBoth()
        let stream = PlainStream(OwnedDescriptor(mine))
        let heard = Recorder()
        stream.start(delegate: heard, reading: true)
        let child = try ChildProcess.spawn(
            path: "/bin/sh", arguments: ["sh", "-c", script], environment: environment,
            descriptors: [(from: its, to: 1)] + others)
        close(its)
        let status = await child.exit()
        try await heard.wait { $0.hasEnded }
        stream.close()
        return (String(decoding: heard.received, as: UTF8.self), status)
    }

    private func run(_ script: String) throws -> ChildProcess {
        try ChildProcess.spawn(
            path: "/bin/sh", arguments: ["sh", "-c", script], environment: ["PATH=/usr/bin:/bin"])
    }

    @Test("exit codes and signals are told, to all who ask, before and after the end")
    func status() async throws {
        let child = try run("exit 7")
        let other = Waiter<ChildProcess.ExitStatus>()
        Loop.shared.spawn { other.succeed(await child.exit()) }
        #expect(await child.exit() == .exited(code: 7))
        #expect(try await other.wait(until: .soon) == .exited(code: 7))
        #expect(await child.exit().isSuccess == false)
        #expect(child.exitStatus?.description == "exit code 7")
        // Its number may be another's by now.
        child.signal(SIGKILL)
        #expect(await (try run("kill -9 $$")).exit() == .signalled(SIGKILL))
        #expect(await (try run("true")).exit().isSuccess)
    }

    @Test("a child can be signalled; waiting for it may have a deadline")
    func signal() async throws {
        let child = try run("exec sleep 1000")
        await #expect(throws: DeadlineExceeded()) {
            _ = try await child.exit(deadline: .after(.milliseconds(1), from: Loop.now))
        }
        #expect(child.exitStatus == nil)
        child.signal(SIGTERM)
        #expect(try await child.exit(deadline: .soon) == .signalled(SIGTERM))
    }

    @Test("the child has the given environment and nothing else of ours")
    func environment() async throws {
        let (text, status) = try await output(
            of: "echo \"$NAME\"; /usr/bin/env | grep -v '^PWD=\\|^_=\\|^OLDPWD=\\|^SHLVL='",
            environment: ["NAME=a b=c"])
        #expect(status.isSuccess)
        #expect(text == "a b=c\nNAME=a b=c\n")
    }

    @Test("the child has the standard descriptors and those listed, and no other")
    func noOthers() async throws {
        // Not close-on-exec, as a careless library would open it.
        let careless = hc_fcntl(1, F_DUPFD, 905)
        let (text, _) = try await output(
            of: "for n in 0 1 2 3 4 5 6 7 8 9 905; do [ -e /proc/$$/fd/$n ] && echo $n; done; true",
            passing: [(from: 0, to: 5)])
        close(careless)
        #expect(text == "0\n1\n2\n5\n")
    }

    @Test("a descriptor keeps its number, loses close-on-exec, and targets may cross sources")
    func crossing() async throws {
        // Numbers that nobody else uses meanwhile.
        let read = "read x </proc/$$/fd/903; read y </proc/$$/fd/904; echo $x$y"
        let a = try fileDescriptor(holding: "a", at: 903)
        let b = try fileDescriptor(holding: "b", at: 904)
        let (text, _) = try await output(
            of: read, passing: [(from: 903, to: 903), (from: 904, to: 904)])
        #expect(text == "ab\n")
        let (crossed, _) = try await output(
            of: read, passing: [(from: 903, to: 904), (from: 904, to: 903)])
        #expect(crossed == "ba\n")
        #expect(a.rawValue == 903 && b.rawValue == 904)
        // Targets that are free here: where the duplicates made on the way would come to lie.
        let free = try a.duplicate(minimum: 3).rawValue
        let (low, _) = try await output(
            of: "read x </proc/$$/fd/\(free + 4); read y </proc/$$/fd/\(free + 5); echo $x$y",
            passing: [(from: 903, to: free + 4), (from: 904, to: free + 5)])
        #expect(low == "ab\n")
        // Ours are what they were.
        #expect(hc_fcntl(903, F_GETFD, 0) == FD_CLOEXEC)
    }

    private func fileDescriptor(
        holding text: String, at number: Int32
    ) throws -> OwnedDescriptor {
        let path = "/tmp/hcio-\(getpid())-\(number)"
        let descriptor = OwnedDescriptor(
            hc_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600))
        unlink(path)
        let line = Array("\(text)\n".utf8)
        #expect(write(descriptor.rawValue, line, line.count) == line.count)
        let copy = try descriptor.duplicate(minimum: number)
        #expect(copy.rawValue == number)
        return copy
    }

    @Test("the child blocks and ignores no signal, though we do")
    func signals() async throws {
        let (text, _) = try await output(of: "/bin/grep -E 'Sig(Blk|Ign)' /proc/self/status")
        let masks = text.split(separator: "\n").map { $0.split(separator: "\t").last }
        // 32 and 33 are the C library's own, and not ours to set.
        for mask in masks {
            #expect(mask.flatMap { UInt64($0, radix: 16) }.map { $0 & 0x7fff_ffff } == 0)
        }
        #expect(masks.count == 2)
    }

    @Test("a program that is not there, or is no program, is an error and no child")
    func notThere() throws {
        #expect(throws: SystemError(errno: ENOENT, call: "posix_spawn")) {
            _ = try ChildProcess.spawn(path: "/nowhere", arguments: ["x"], environment: [])
        }
        #expect(throws: SystemError(errno: EACCES, call: "posix_spawn")) {
            _ = try ChildProcess.spawn(path: "/etc/passwd", arguments: ["x"], environment: [])
        }
    }

    @Test("a child in a group of its own leads it")
    func ownGroup() async throws {
        let child = try ChildProcess.spawn(
            path: "/bin/sh", arguments: ["sh", "-c", "read x"], environment: [], ownGroup: true)
        #expect(getpgid(child.processIdentifier) == child.processIdentifier)
        child.signal(SIGKILL)
        _ = await child.exit()
    }

    @Test("the parent is known")
    func parent() {
        #expect(ParentProcess.identifier == getppid())
    }
}

struct ResourceTests {
    @Test("memory in use is a plausible number, and the limit of open files can be raised")
    func usage() throws {
        #expect(ResourceUsage.residentBytes > 1 << 20)
        #expect(try ResourceUsage.raiseOpenFilesLimit() >= 256)
    }

    @Test(
        "processors are those of the affinity or of the quota, whole ones, at least one",
        arguments: [
            (8, [], 8), (8, [4.0], 4), (8, [2.5, 4.0], 2), (8, [0.5], 1), (2, [16.0], 2),
            (1, [], 1),
        ] as [(Int, [Double], Int)])
    func cores(affinity: Int, quotas: [Double], expected: Int) {
        #expect(CPUQuota.cores(affinity: affinity, quotas: quotas) == expected)
    }

    @Test("quotas of a group and its ancestors count, version 2")
    func version2() {
        let files = [
            "/proc/self/cgroup": "0::/pods/pod1/hc\n",
            "/sys/fs/cgroup/pods/pod1/hc/cpu.max": "max 100000\n",
            "/sys/fs/cgroup/pods/pod1/cpu.max": "250000 100000\n",
            "/sys/fs/cgroup/pods/cpu.max": "800000 100000\n",
        ]
        #expect(CPUQuota.quotas(root: "") { files[$0] } == [2.5, 8])
    }

    @Test("quotas, version 1; -1 is none")
    func version1() {
        let files = [
            "/proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
            "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "-1\n",
            "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        ]
        #expect(CPUQuota.quotas(root: "") { files[$0] } == [1.5])
    }

    @Test("without control groups there is no quota; nonsense is none either")
    func none() {
        #expect(CPUQuota.quotas(root: "") { _ in nil } == [])
        for text in ["", "max", "0 100000", "-5 100000", "100000 0", "a b", "1 2 3"] {
            #expect(CPUQuota.parseMaximum(text) == nil)
        }
        #expect(CPUQuota.cores() >= 1)
    }
}
