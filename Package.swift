// swift-tools-version: 6.2
// HC depends on no Swift package: C libraries from apt behind system-library doors, and the toolchain.
import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// A room of the house (`Sources/README.md`): it imports lower floors only.
func room(_ name: String, _ dependencies: [String], resources: [Resource] = []) -> Target {
    .target(
        name: name,
        dependencies: dependencies.map { .byName(name: $0) },
        resources: resources,
        swiftSettings: settings
    )
}

func program(
    _ name: String, _ dependencies: [String], path: String? = nil, exclude: [String] = []
) -> Target {
    .executableTarget(
        name: name,
        dependencies: dependencies.map { .byName(name: $0) },
        path: path,
        exclude: exclude,
        swiftSettings: settings
    )
}

func tests(_ name: String, _ dependencies: [String], exclude: [String] = []) -> Target {
    .testTarget(
        name: name,
        dependencies: (dependencies + ["HCTesting"]).map { .byName(name: $0) },
        exclude: exclude,
        swiftSettings: settings
    )
}

func fuzzer(_ name: String, _ dependencies: [String], _ folder: String) -> Target {
    program(name, dependencies, path: "Tests/Fuzz/\(folder)", exclude: ["corpus"])
}

let doors: [Target] = [
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
    .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(
        name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(
        name: "CBrotli", pkgConfig: "libbrotlienc", providers: [.apt(["libbrotli-dev"])]),
    .systemLibrary(
        name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
]

let rooms: [Target] = [
    room("HCCore", []),
    room("HCIO", ["HCCore", "CLinux", "COpenSSL"]),
    room("HCCrypto", ["HCCore", "COpenSSL"]),
    room("HCPostgres", ["HCCore", "HCIO", "CLibPQ", "CLinux"]),
    room("HCRedis", ["HCCore", "HCIO", "CHiredis"]),
    room(
        "HCHTTP",
        [
            "HCCore", "HCIO", "HCCrypto", "CCurl", "CLinux", "CNGHTTP2", "CZlib", "CBrotli",
        ]),
    room("HCTenancy", ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "CZlib"]),
    room(
        "HCClinic", ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCTenancy"],
        resources: [.embedInCode("permissions.json")]),
    room("HCControl", ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCTenancy"]),
    room(
        "HCApp",
        [
            "HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCHTTP", "HCTenancy",
            "HCClinic", "CLinux",
        ]),
    room(
        "HCAdmin",
        [
            "HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCHTTP", "HCTenancy",
            "HCClinic",
            "HCControl",
        ]),
    room("HCTesting", ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCHTTP", "CLinux"]),
]

let programs: [Target] = [
    program("hc-server", ["HCApp"]),
    program("hc-admin", ["HCAdmin"]),
]

let allSuites: [Target] = [
    tests("HCCoreTests", ["HCCore"]),
    tests("HCIOTests", ["HCCore", "HCIO", "CLinux", "COpenSSL"]),
    tests("HCCryptoTests", ["HCCore", "HCCrypto"]),
    tests("HCPostgresTests", ["HCCore", "HCIO", "HCPostgres"]),
    tests("HCRedisTests", ["HCCore", "HCIO", "HCRedis"]),
    tests(
        "HCHTTPTests",
        [
            "HCCore", "HCIO", "HCCrypto", "HCHTTP", "CLinux", "CNGHTTP2", "CZlib", "CBrotli",
        ]),
    tests("HCTenancyTests", ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCTenancy"]),
    tests(
        "HCClinicTests",
        ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCRedis", "HCTenancy", "HCClinic"]),
    tests(
        "HCControlTests",
        ["HCCore", "HCIO", "HCCrypto", "HCPostgres", "HCTenancy", "HCControl", "CLinux"]),
    tests("HCAppTests", ["HCCore", "HCIO", "HCHTTP", "HCTenancy", "HCClinic", "HCApp"]),
    tests("HCAdminTests", ["HCCore", "HCIO", "HCTenancy", "HCControl", "HCAdmin"]),
    tests(
        "EndToEndTests", ["HCCore", "HCIO", "HCCrypto", "HCHTTP", "HCApp", "HCClinic", "CLinux"],
        exclude: ["Clients", "Load"]),
    tests(
        "HouseTests",
        [
            "HCCore", "CLinux", "CLibPQ", "CHiredis", "COpenSSL", "CNGHTTP2", "CZlib", "CBrotli",
            "CCurl",
        ]),
]

/// `HC_SUITES=HCIOTests,HCHTTPTests` leaves out the other suites, and what only they need is not built.
let wanted = Context.environment["HC_SUITES"].map { $0.split(separator: ",").map(String.init) }
let suites = allSuites.filter { wanted?.contains($0.name) ?? true }

/// `HC_FUZZ=1` adds the fuzzers: they need `-sanitize=fuzzer` and have no `main` of their own.
let fuzzers: [Target] =
    Context.environment["HC_FUZZ"] == nil
    ? []
    : [
        fuzzer("fuzz-http1", ["HCHTTP"], "HTTP1"),
        fuzzer("fuzz-http2", ["HCCore", "HCHTTP"], "HTTP2"),
        fuzzer("fuzz-negotiation", ["HCCore", "HCHTTP"], "Negotiation"),
        fuzzer("fuzz-proxy", ["HCHTTP", "HCIO"], "Proxy"),
        fuzzer("fuzz-websocket", ["HCHTTP"], "WebSocket"),
        fuzzer("fuzz-url", ["CCurl", "CLinux", "HCHTTP", "HCIO"], "URL"),
        fuzzer("fuzz-tls", ["HCCore", "HCIO"], "TLS"),
        fuzzer("fuzz-values", ["HCCore", "HCCrypto"], "Values"),
    ]

let package = Package(
    name: "hc",
    targets: doors + rooms + programs + suites + fuzzers,
    swiftLanguageModes: [.v6]
)
