import Testing

@testable import HCControl

@Suite("Statements of a script")
struct SQLScriptTests {
    @Test(
        "a semicolon ends a statement, unless it is in quotes, a comment, parentheses or a body",
        arguments: [
            ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
            (";; SELECT 1 ;;", ["SELECT 1 "]),
            ("-- a; b\nSELECT 1", ["SELECT 1"]),
            ("SELECT 1 -- a; b", ["SELECT 1 -- a; b"]),
            ("SELECT ';''; '; X", ["SELECT ';''; '", "X"]),
            (#"SELECT E'\';'; X"#, [#"SELECT E'\';'"#, "X"]),
            (#"SELECT '\'; X"#, [#"SELECT '\'"#, "X"]),
            (#"SELECT ";"";"; X"#, [#"SELECT ";"";""#, "X"]),
            ("/* ; /* ; */ ; */ X; Y", ["X", "Y"]),
            ("DO $$ a; $b$ c; $$; X", ["DO $$ a; $b$ c; $$", "X"]),
            ("DO $a$ ; $$ ; $a$; X", ["DO $a$ ; $$ ; $a$", "X"]),
            ("SELECT $1; SELECT a$b$c; X", ["SELECT $1", "SELECT a$b$c", "X"]),
            ("CREATE RULE r DO (a; b); X", ["CREATE RULE r DO (a; b)", "X"]),
            (
                "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END; X",
                [
                    "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END",
                    "X",
                ]
            ),
            (
                "BEGIN; SELECT CASE WHEN a THEN b END; END",
                ["BEGIN", "SELECT CASE WHEN a THEN b END", "END"]
            ),
            ("SELECT 'never ended; ", ["SELECT 'never ended; "]),
            ("", []),
        ])
    func split(sql: String, texts: [String]) {
        #expect(SQLScript.statements(of: sql).map(\.text) == texts)
    }

    @Test("a statement's line is that of its first word")
    func lines() {
        let sql = "\n-- one\n\nA\n 'x\ny';\n/* \n */ B;\nDO $$\n\n$$; C"
        #expect(SQLScript.statements(of: sql).map(\.line) == [4, 8, 9, 11])
    }
}
