/// The jobs that wait for their turn on the loop, first in, first out.
///
/// Not bounded: a job that is refused would be a task that never ends. What makes jobs is bounded instead
/// (connections, pools, queues).
struct JobQueue: ~Copyable {
    private var slots: UnsafeMutableBufferPointer<UnownedJob>
    private var head = 0
    private(set) var count = 0

    init() {
        slots = .allocate(capacity: 256)
    }

    deinit {
        // A job is a reference that its task owns: there is nothing to release in the slots.
        slots.deallocate()
    }

    var isEmpty: Bool { count == 0 }

    mutating func append(_ job: UnownedJob) {
        if count == slots.count { grow() }
        slots.initializeElement(at: (head + count) & (slots.count - 1), to: job)
        count += 1
    }

    mutating func popFirst() -> UnownedJob? {
        guard count > 0 else { return nil }
        let job = slots.moveElement(from: head)
        head = (head + 1) & (slots.count - 1)
        count -= 1
        return job
    }

    /// Doubles the room: the size stays a power of two, so that places are found with a mask.
    private mutating func grow() {
        let larger = UnsafeMutableBufferPointer<UnownedJob>.allocate(capacity: slots.count * 2)
        for offset in 0..<count {
            let job = slots.moveElement(from: (head + offset) & (slots.count - 1))
            larger.initializeElement(at: offset, to: job)
        }
        slots.deallocate()
        slots = larger
        head = 0
    }
}
