/// A plain text table for people: columns as wide as their widest cell, two blanks between.
struct Table {
    var header: [String]
    var rows: [[String]]

    func render() -> String {
        // A row is a line: a reason and its remedy come as two.
        let rows = rows.map { row in row.map { $0.replacing("\n", with: "; ") } }
        var widths = header.map(\.count)
        for row in rows {
            for (column, cell) in row.enumerated() {
                widths[column] = max(widths[column], cell.count)
            }
        }
        return ([header] + rows).map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                line += cell
                if column + 1 < row.count {
                    line += String(repeating: " ", count: widths[column] - cell.count + 2)
                }
            }
            return line
        }.joined(separator: "\n")
    }
}
