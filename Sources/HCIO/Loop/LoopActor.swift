/// The isolation of everything that lives on the event loop: streams, timers, connections, handlers.
///
/// Its executor is `Loop.shared`, so code isolated to it runs on the loop's thread, and a call from one
/// such function to another does not hop.
@globalActor package actor LoopActor {
    package static let shared = LoopActor()

    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        Loop.shared.asUnownedSerialExecutor()
    }

    /// Enters the isolation from synchronous code that is on the loop's thread already: `main`, and
    /// the callbacks of C libraries.
    ///
    /// Ends the process when called from any other thread.
    package static func assumeIsolated<Value, Failure: Error>(
        _ body: @LoopActor () throws(Failure) -> Value
    ) throws(Failure) -> Value {
        Loop.shared.checkIsolated()
        typealias Plain = () throws(Failure) -> Value
        return try withoutActuallyEscaping(body) { body throws(Failure) -> Value in
            // The two function types differ in isolation only, which has just been checked.
            try unsafeBitCast(body, to: Plain.self)()
        }
    }
}
