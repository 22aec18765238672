import CLinux
package import HCCore

/// What an armed fault point does to a real program (`HC_FAULT`): the ways in which processes die.
package enum FaultActions {
    package static func perform(_ action: FaultPoint.Action) {
        switch action {
        case .kill: kill(getpid(), SIGKILL)
        case .stop: kill(getpid(), SIGSTOP)
        case .fail: break
        }
    }
}
