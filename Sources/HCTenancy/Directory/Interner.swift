/// Gives equal texts one storage: a hundred thousand clinics have a handful of time zones, tiers and shards.
struct Interner {
    private var known: Set<String> = []

    /// More different ones are no names of a few things: they are given back as they are.
    private static let countMax = 4096

    mutating func one(_ text: String) -> String {
        // Up to 15 bytes are held in the value itself.
        guard text.utf8.count > 15, known.count < Interner.countMax else { return text }
        return known.insert(text).memberAfterInsert
    }
}
