import HCClinic
import HCHTTP
import HCTenancy

/// What a route costs its clinic's limits, and how exactly it is counted, by the class in its description.
///
/// | class    | rule class | units | counted                                                                 |
/// |----------|------------|-------|-------------------------------------------------------------------------|
/// | read     | default    | 1     | with leased units                                                       |
/// | write    | default    | 20    | with leased units                                                       |
/// | search   | search     | 10    | with leased units                                                       |
/// | booking  | booking    | 20    | with leased units: a time is given once whatever the limit lets through |
/// | login    | login      | 20    | exactly: guessing passwords                                             |
/// | ticket   | login      | 1     | with leased units: of what comes without a login an address gets little |
/// | otp      | otp        | 20    | exactly: guessing codes, and each one sent costs money                  |
/// | export   | export     | 500   | exactly: each one is much work, and much data                           |
/// | upload   | upload     | 20    | exactly: each one is much to keep                                       |
enum RouteClass: String, CaseIterable {
    /// Belongs to no clinic: asked of any host, limited by nobody's tier.
    case platform
    case read
    case search
    case write
    case booking
    case login
    /// Open to anybody who brings a secret of one use: of rules by the clinic alone an outsider could take all.
    case ticket
    case otp
    case export
    case upload

    /// - Precondition: the table names a known class; a test walks it.
    init(_ route: RouteDescription) {
        guard let known = RouteClass(rawValue: route.limitClass) else {
            preconditionFailure("route \(route.name) has the unknown class \(route.limitClass)")
        }
        self = known
    }

    /// When a route of this class is refused under overload, unless the table says otherwise.
    var lane: RequestLane {
        switch self {
        case .search, .export, .upload: .bulk
        case .login, .otp: .entry
        case .platform, .read, .write, .booking, .ticket: .interactive
        }
    }

    var cost: RequestCost {
        switch self {
        case .platform: .nothing
        case .read, .ticket: .read
        case .search: .search
        case .write, .booking, .login, .otp, .upload: .write
        case .export: .export
        }
    }

    /// What the rules of a tier call it.
    var limitClass: LimitClass {
        switch self {
        case .platform, .read, .write: .default
        case .search: .search
        case .booking: .booking
        case .login, .ticket: .login
        case .otp: .otp
        case .export: .export
        case .upload: .upload
        }
    }

    /// Whether Redis is asked for each request: what must not pass once too often.
    var isExact: Bool {
        switch self {
        case .login, .otp, .export, .upload: true
        case .platform, .read, .search, .write, .booking, .ticket: false
        }
    }
}

/// All that the limits want to know about a route, worked out once.
struct RouteLimits {
    let kind: LimitClass
    let cost: RequestCost
    let isExact: Bool
    /// Whether nobody has to be logged in.
    let isOpen: Bool
    /// Whether care depends on it: what the reserve of the tier is for.
    let isSafety: Bool

    init(_ route: RouteDescription) {
        let known = RouteClass(route)
        kind = known.limitClass
        cost = known.cost
        isExact = known.isExact
        isOpen = route.access == .open
        isSafety = route.lane == .safety && !isOpen
    }

    /// The reserve is for those who treat: a patient who looks at the own record, however often, takes nothing of it.
    func lane(_ claims: AccessClaims?) -> LimitLane {
        isSafety && claims != nil && claims?.patient == nil ? .safety : .ordinary
    }
}
