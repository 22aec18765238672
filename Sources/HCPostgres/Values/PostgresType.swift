/// A type of the server by its OID (`pg_type.dat`; the OIDs of built-in types never change).
package struct PostgresType: Hashable, Sendable {
    package let oid: UInt32

    package init(oid: UInt32) { self.oid = oid }

    /// "Let the server infer it": what a null is bound as.
    static let unspecified = PostgresType(oid: 0)
    package static let bool = PostgresType(oid: 16)
    package static let bytea = PostgresType(oid: 17)
    package static let internalChar = PostgresType(oid: 18)
    package static let name = PostgresType(oid: 19)
    package static let int8 = PostgresType(oid: 20)
    package static let int2 = PostgresType(oid: 21)
    package static let int4 = PostgresType(oid: 23)
    package static let text = PostgresType(oid: 25)
    package static let oid = PostgresType(oid: 26)
    package static let xid = PostgresType(oid: 28)
    package static let float4 = PostgresType(oid: 700)
    package static let float8 = PostgresType(oid: 701)
    package static let unknown = PostgresType(oid: 705)
    package static let byteaArray = PostgresType(oid: 1001)
    package static let textArray = PostgresType(oid: 1009)
    package static let int8Array = PostgresType(oid: 1016)
    package static let bpchar = PostgresType(oid: 1042)
    package static let varchar = PostgresType(oid: 1043)
    package static let date = PostgresType(oid: 1082)
    package static let timestamptz = PostgresType(oid: 1184)
    package static let timestamptzArray = PostgresType(oid: 1185)
    package static let uuid = PostgresType(oid: 2950)
    package static let uuidArray = PostgresType(oid: 2951)
    package static let void = PostgresType(oid: 2278)
    package static let jsonb = PostgresType(oid: 3802)
    package static let tstzrange = PostgresType(oid: 3910)
    package static let xid8 = PostgresType(oid: 5069)
}

extension PostgresType: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unspecified: "unspecified"
        case .bool: "bool"
        case .bytea: "bytea"
        case .internalChar: "\"char\""
        case .name: "name"
        case .int8: "int8"
        case .int2: "int2"
        case .int4: "int4"
        case .text: "text"
        case .oid: "oid"
        case .xid: "xid"
        case .float4: "float4"
        case .float8: "float8"
        case .unknown: "unknown"
        case .byteaArray: "bytea[]"
        case .textArray: "text[]"
        case .int8Array: "int8[]"
        case .bpchar: "bpchar"
        case .varchar: "varchar"
        case .date: "date"
        case .timestamptz: "timestamptz"
        case .timestamptzArray: "timestamptz[]"
        case .uuid: "uuid"
        case .uuidArray: "uuid[]"
        case .void: "void"
        case .jsonb: "jsonb"
        case .tstzrange: "tstzrange"
        case .xid8: "xid8"
        default: "oid \(oid)"
        }
    }
}
