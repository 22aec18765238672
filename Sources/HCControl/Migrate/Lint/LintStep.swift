/// What one statement has done, by the catalogue before and after it.
struct LintStep {
    typealias Problem = LintCatalogue.Problem

    /// Before the first statement of the migration.
    let start: LintCatalogue
    let before: LintCatalogue
    let after: LintCatalogue
    /// The statement had a transaction to itself and cannot run in one: then it takes no lock for long.
    var isBare = false

    /// Bits of `pg_event_trigger_table_rewrite_reason()` (PostgreSQL manual, 9.29.2; event_trigger.h).
    private static let defaultValue = 0x02
    private static let columnType = 0x04

    /// Tables that were there before the migration: people work with them meanwhile.
    private var existing: Set<UInt64> { Set(start.relations.filter { $0.value.isTable }.keys) }

    func problems() -> [Problem] {
        var problems: [Problem] = []
        let rewritten = rewrites(&problems)
        indexes(rewritten, &problems)
        columns(rewritten, &problems)
        constraints(rewritten, &problems)
        if problems.isEmpty { locks(&problems) }
        return problems
    }

    /// - Returns: the tables that have new files, whose indexes and constraints are made anew with them.
    private func rewrites(_ problems: inout [Problem]) -> Set<UInt64> {
        var rewritten: Set<UInt64> = []
        for rewrite in after.rewrites.dropFirst(before.rewrites.count)
        where existing.contains(rewrite.table) && rewritten.insert(rewrite.table).inserted {
            let rule: LintRule =
                if rewrite.reason & LintStep.columnType != 0 {
                    .typeRewrite
                } else if rewrite.reason & LintStep.defaultValue != 0 {
                    .volatileDefault
                } else {
                    .rewrite
                }
            problems.append(Problem(rule: rule, object: before.name(rewrite.table)))
        }
        for table in existing.sorted() where !rewritten.contains(table) {
            guard let old = before.relations[table], let new = after.relations[table],
                old.file != new.file
            else { continue }
            rewritten.insert(table)
            problems.append(Problem(rule: .truncate, object: old.name))
        }
        return rewritten
    }

    private func indexes(_ rewritten: Set<UInt64>, _ problems: inout [Problem]) {
        // ALTER TYPE gives an index that need not be built a new identity and its old file; 0 is none.
        let files = Set(before.indexes.keys.compactMap { before.relations[$0]?.file }).subtracting([
            0
        ])
        for (index, here) in after.indexes.sorted(by: { $0.key < $1.key })
        where existing.contains(here.table) && !rewritten.contains(here.table) {
            let file = after.relations[index]?.file
            let object = "\(after.name(here.table)): \(after.name(index))"
            if before.indexes[index] != nil {
                guard before.relations[index]?.file != file, !isBare else { continue }
                problems.append(Problem(rule: .indexRebuild, object: object))
            } else if !isBare {
                guard file.map(files.contains) != true else { continue }
                problems.append(Problem(rule: .index, object: object))
            }
            if !here.isValid, before.indexes[index]?.isValid != false {
                problems.append(Problem(rule: .indexInvalid, object: object))
            }
        }
    }

    private func columns(_ rewritten: Set<UInt64>, _ problems: inout [Problem]) {
        for (key, column) in after.columns.sorted(by: { $0.key.number < $1.key.number })
        where column.isNotNull && existing.contains(key.table) && !rewritten.contains(key.table) {
            let object = "\(after.name(key.table)).\(column.name)"
            if let old = before.columns[key] {
                guard !old.isNotNull, isScanned(key.table) else { continue }
                problems.append(Problem(rule: .notNull, object: object))
            } else if !column.hasMissing {
                problems.append(Problem(rule: .columnWithoutDefault, object: object))
            }
        }
    }

    private func constraints(_ rewritten: Set<UInt64>, _ problems: inout [Problem]) {
        for (identity, constraint) in after.constraints.sorted(by: { $0.key < $1.key })
        where constraint.isValid && existing.contains(constraint.table) {
            guard start.constraints[identity] == nil, !rewritten.contains(constraint.table) else {
                continue
            }
            let object = "\(after.name(constraint.table)): \(constraint.name)"
            if let old = before.constraints[identity] {
                if !old.isValid {
                    problems.append(Problem(rule: .validateAtOnce, object: object))
                }
            } else if constraint.kind == "c" {
                // PostgreSQL may know without looking.
                guard isScanned(constraint.table) else { continue }
                problems.append(Problem(rule: .check, object: object))
            } else if constraint.kind == "f", !isOfEmptyColumn(constraint) {
                problems.append(Problem(rule: .foreignKey, object: object))
            }
        }
    }

    /// PostgreSQL looks up nothing for a column that is added with its foreign key and no value.
    private func isOfEmptyColumn(_ constraint: LintCatalogue.Constraint) -> Bool {
        guard constraint.columns.count == 1 else { return false }
        let key = LintCatalogue.ColumnKey(table: constraint.table, number: constraint.columns[0])
        return before.columns[key] == nil && after.columns[key]?.hasMissing == false
    }

    private func isScanned(_ table: UInt64) -> Bool {
        (after.relations[table]?.scans ?? 0) > (before.relations[table]?.scans ?? 0)
    }

    /// A table that is locked for everyone by one statement, while another one locks a second table or works on rows.
    private func locks(_ problems: inout [Problem]) {
        let tables = existing
        let held = before.locked("AccessExclusiveLock", of: tables)
        guard !held.isEmpty else { return }
        let kept = held.sorted().map(before.name).joined(separator: ", ")
        let further = after.locked("AccessExclusiveLock", of: tables).subtracting(held)
        let written = after.locked("RowExclusiveLock", of: tables)
            .subtracting(before.locked("RowExclusiveLock", of: tables))
        let scanned = tables.filter(isScanned)
        for table in further.union(written).union(scanned).sorted() {
            problems.append(
                Problem(rule: .longLock, object: "\(kept), for work on \(after.name(table))"))
        }
    }
}
