/// The house as `Sources/README.md` draws it: a room imports lower floors only.
enum Floors {
    static let rooms: [String: Int] = [
        "HCCore": 1, "HCIO": 2, "HCCrypto": 2, "HCPostgres": 3, "HCRedis": 3, "HCHTTP": 3,
        "HCTenancy": 4, "HCClinic": 5, "HCJobs": 5, "HCControl": 5, "HCApp": 6, "HCAdmin": 6,
        // Fixtures stand beside the house: they may use what is below the sixth floor.
        "HCTesting": 6,
        "hc-server": 7, "hc-jobs": 7, "hc-admin": 7,
    ]

    /// Which rooms open which door. Everything about a C library stays in the rooms behind its door.
    static let doors: [String: Set<String>] = [
        "CLinux": ["HCIO", "HCPostgres", "HCHTTP", "HCApp", "HCAdmin", "HCTesting"],
        "CLibPQ": ["HCPostgres"],
        "CHiredis": ["HCRedis"],
        "COpenSSL": ["HCIO", "HCCrypto"],
        "CNGHTTP2": ["HCHTTP"],
        "CZlib": ["HCHTTP", "HCTenancy"],
        "CBrotli": ["HCHTTP"],
        "CCurl": ["HCHTTP"],
    ]

    /// Modules of the toolchain. There is no Foundation on a server.
    static func isToolchain(_ module: String, allowedIn room: String) -> Bool {
        switch module {
        case "Swift", "Synchronization": true
        // The lowest room does no input or output, and the clinic does none of its own.
        case "Glibc": !["HCCore", "HCClinic"].contains(room)
        case "Testing": room == "HCTesting"
        default: false
        }
    }

    /// - Returns: why `room` may not import `module`, or nil.
    static func refusal(of module: String, in room: String) -> String? {
        guard let floor = rooms[room] else { return "\(room) is no room of the house" }
        if let imported = rooms[module] {
            return imported < floor ? nil : "\(room) imports \(module), which is not below it"
        }
        if let allowed = doors[module] {
            return allowed.contains(room) ? nil : "\(room) opens the door \(module)"
        }
        return isToolchain(module, allowedIn: room) ? nil : "\(room) imports \(module)"
    }
}
