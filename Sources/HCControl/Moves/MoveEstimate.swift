/// How long a copy will go on.
enum MoveEstimate {
    /// Nil while there is too little to tell by: less than a second, or less than a hundredth.
    static func left(done: Int64, of all: Int64, after elapsed: Duration) -> Duration? {
        guard elapsed >= .seconds(1), done > 0, done >= all / 100 else { return nil }
        guard done < all else { return .zero }
        return elapsed * (Double(all - done) / Double(done))
    }
}
