/// What a session has done, added up since it began.
package struct PostgresWork: Sendable, Equatable {
    /// Time between sending statements and having their results.
    package var time = Duration.zero
    /// Rows that statements gave back or changed.
    package var rows = 0
    /// Of these, rows that were inserted, updated or deleted.
    package var rowsChanged = 0

    package init() {}

    package static func - (left: PostgresWork, right: PostgresWork) -> PostgresWork {
        var work = left
        work.time -= right.time
        work.rows -= right.rows
        work.rowsChanged -= right.rowsChanged
        return work
    }
}
