import HCCore
import HCTenancy
import Testing

@testable import HCClinic

struct PermissionMatrixTests {
    @Test("the embedded file has one row per permission and says what each is for")
    func everyPermissionHasARow() {
        let matrix = PermissionMatrix.embedded
        #expect(
            matrix.rows.map(\.permission).sorted { $0.rawValue < $1.rawValue }
                == Permission.allCases.sorted { $0.rawValue < $1.rawValue })
        #expect(matrix.rows.allSatisfy { !$0.about.isEmpty && !$0.grants.isEmpty })
    }

    /// One cell of the matrix: made from the file, so a new row is a new test.
    struct Cell: Sendable, CustomTestStringConvertible {
        let permission: Permission
        let role: Role
        let scope: Scope?

        var testDescription: String {
            "\(role.rawValue) \(permission.rawValue): \(scope?.rawValue ?? "never")"
        }
    }

    static let cells: [Cell] = PermissionMatrix.embedded.rows.flatMap { row in
        Role.allCases.map { Cell(permission: row.permission, role: $0, scope: row.grants[$0]) }
    }

    @Test("a role has what its cell says, and nothing else", arguments: cells)
    func cell(_ cell: Cell) {
        let matrix = PermissionMatrix.embedded
        #expect(matrix.scope(of: cell.permission, for: RoleSet(cell.role)) == cell.scope)
        let granted = matrix.granted(to: RoleSet(cell.role)).map(\.permission)
        #expect(granted.contains(cell.permission) == (cell.scope != nil))
    }

    @Test("nobody may do anything without a role")
    func denyByDefault() {
        for permission in Permission.allCases {
            #expect(PermissionMatrix.embedded.scope(of: permission, for: []) == nil)
        }
        #expect(RoleSet(names: ["root", "Owner", ""]).isEmpty)
    }

    @Test("of several roles the widest scope counts")
    func widestScope() {
        let matrix = PermissionMatrix.embedded
        #expect(matrix.scope(of: .appointmentsOperate, for: [RoleSet(.doctor)]) == .own)
        #expect(
            matrix.scope(of: .appointmentsOperate, for: [RoleSet(.doctor), RoleSet(.nurse)]) == .all
        )
        #expect(matrix.scope(of: .staffWrite, for: [RoleSet(.admin), RoleSet(.owner)]) == .all)
    }

    @Test("what the issue and the domain ask of the matrix stands in it")
    func knownCells() {
        let matrix = PermissionMatrix.embedded
        #expect(matrix.scope(of: .staffWrite, for: RoleSet(.admin)) == .exceptOwners)
        #expect(matrix.scope(of: .patientsWrite, for: RoleSet(.patient)) == .ownContact)
        #expect(matrix.scope(of: .patientsRead, for: RoleSet(.patient)) == .own)
        #expect(matrix.scope(of: .patientsSearch, for: RoleSet(.patient)) == nil)
        #expect(matrix.scope(of: .appointmentsOverbook, for: RoleSet(.receptionist)) == nil)
        #expect(matrix.scope(of: .clinicWrite, for: RoleSet(.doctor)) == nil)
        #expect(matrix.scope(of: .patientsCreate, for: RoleSet(.owner)) == .all)
    }

    @Test(
        "a file that does not fit the code is refused",
        arguments: [
            "{}",
            #"{"roles":["owner"],"scopes":["all"],"permissions":[]}"#,
            #"[]"#,
        ])
    func refusesStrangers(_ text: String) {
        #expect(throws: (any Error).self) { try PermissionMatrix(json: Array(text.utf8)) }
    }

    @Test("a row that is missing, doubled, or grants to a stranger is refused")
    func refusesBrokenRows() throws {
        let text = String(decoding: PackageResources.permissions_json, as: UTF8.self)
        let broken = [
            text.replacing("\"clinic.read\"", with: "\"clinic.look\""),
            text.replacing("\"clinic.write\"", with: "\"clinic.read\""),
            text.replacing("\"nurse\": \"all\"", with: "\"janitor\": \"all\""),
            text.replacing("\"owner\": \"own\"", with: "\"owner\": \"most\""),
        ]
        for text in broken {
            #expect(throws: PermissionMatrix.MatrixError.self) {
                try PermissionMatrix(json: Array(text.utf8))
            }
        }
    }
}
