internal import CLinux

/// The process that started this one.
package enum ParentProcess {
    /// Has this process killed by `signal` when its parent ends, however the parent ends (man
    /// PR_SET_PDEATHSIG). To be called by the child, early.
    ///
    /// The kernel goes by the parent's *thread* that started the child: it has to be one that lives as long
    /// as the parent, as the loop's thread does.
    ///
    /// - Parameter parent: the process that is meant to be the parent. If it has ended already, before
    ///   the kernel was asked, this process has been adopted by another.
    /// - Returns: false then: nobody is there to send the signal, and the caller has to end by itself.
    package static func dieWithParent(signal: Int32, parent: Int32) throws(SystemError) -> Bool {
        try SystemCall.make("prctl(PR_SET_PDEATHSIG)") { hc_set_parent_death_signal(signal) }
        return getppid() == parent
    }

    package static var identifier: Int32 { getppid() }
}
