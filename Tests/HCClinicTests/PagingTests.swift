import HCCore
import HCCrypto
import HCTenancy
import Testing

@testable import HCClinic

struct CursorCodecTests {
    private let codec: CursorCodec
    private let sunrise = TenantID(UUID(high: 1, low: 1))
    private let lakeside = TenantID(UUID(high: 1, low: 2))
    private let position = KeysetPosition.bytes(of: UUID(high: 3, low: 4))

    init() throws {
        codec = CursorCodec(try ClinicSecrets.forTests().cursors)
    }

    private func query(_ familyName: String?) -> QueryIdentity {
        var search = PatientSearch()
        search.familyName = familyName
        return search.identity
    }

    @Test("a cursor gives its position back to its clinic and query")
    func roundTrip() throws {
        let text = try codec.text(position: position, tenant: sunrise, query: query("demo"))
        #expect(try codec.position(in: text, tenant: sunrise, query: query("demo")) == position)
    }

    @Test("a cursor is refused by another clinic, another filter and another list")
    func bound() throws {
        let text = try codec.text(position: position, tenant: sunrise, query: query("demo"))
        let refusals: [(TenantID, QueryIdentity)] = [
            (lakeside, query("demo")), (sunrise, query("demos")), (sunrise, query(nil)),
            (sunrise, QueryIdentity("staff by id")), (sunrise, AppointmentFilter().identity),
        ]
        for (tenant, query) in refusals {
            #expect(throws: ClinicError(.invalidCursor)) {
                try codec.position(in: text, tenant: tenant, query: query)
            }
        }
    }

    @Test("a cursor with any byte changed is refused")
    func tampered() throws {
        let text = try codec.text(position: position, tenant: sunrise, query: query(nil))
        let bytes = try #require(Base64.url.decode(text))
        for index in bytes.indices {
            var changed = bytes
            changed[index] ^= 1
            #expect(throws: ClinicError(.invalidCursor)) {
                try codec.position(
                    in: Base64.url.encode(changed), tenant: sunrise, query: query(nil))
            }
        }
    }

    @Test("what is no cursor is refused", arguments: ["", "x", "!!!!", "AAAA", "bogus.bogus"])
    func garbage(_ text: String) {
        #expect(throws: ClinicError(.invalidCursor)) {
            try codec.position(in: text, tenant: sunrise, query: query(nil))
        }
    }

    @Test("a filter moved into its neighbour is another query")
    func filtersDoNotRunTogether() throws {
        var first = PatientSearch()
        first.familyName = "ab"
        first.givenName = "c"
        var second = PatientSearch()
        second.familyName = "a"
        second.givenName = "bc"
        #expect(first.identity.bytes != second.identity.bytes)
    }

    @Test("positions with a time keep times before 1970 too")
    func instants() throws {
        for microseconds in [Int64.min, -1, 0, 1, Int64.max] {
            let bytes = KeysetPosition.bytes(
                of: Timestamp(microseconds: microseconds), UUID(high: 5, low: 6))
            let (instant, id) = try KeysetPosition.instantAndID(in: bytes)
            #expect(instant.microseconds == microseconds)
            #expect(id == UUID(high: 5, low: 6))
        }
    }

    @Test("limits are numbers from 1 to 200")
    func limits() throws {
        #expect(try PageRequest(limitText: nil, cursor: nil).limit == 50)
        #expect(try PageRequest(limitText: "200", cursor: nil).limit == 200)
        for text in ["0", "201", "-1", "1e2", "", "ten", "+5", "٣"] {
            #expect(throws: ClinicError.self) { try PageRequest(limitText: text, cursor: nil) }
        }
    }
}

struct IfMatchTests {
    @Test("tags of the version match, weak ones and strangers do not")
    func matching() throws {
        try IfMatch(field: EntityTag.text(version: 3)).require(version: 3)
        try IfMatch(field: "*").require(version: 99)
        try IfMatch(field: " \"v1\" , \"v3\"").require(version: 3)
        for field in ["\"v2\"", "W/\"v3\"", "\"3\"", "\"v03x\"", "\"\""] {
            #expect(throws: ClinicError(.preconditionFailed)) {
                try IfMatch(field: field).require(version: 3)
            }
        }
    }

    @Test("a change without If-Match is refused before anything is read")
    func missing() throws {
        #expect(throws: ClinicError(.preconditionRequired)) {
            try IfMatch(field: nil).requirePresent()
        }
        #expect(throws: ClinicError(.preconditionRequired)) {
            try IfMatch(field: nil).require(version: 1)
        }
        try IfMatch(field: nil).requireIfPresent(version: 1)
        #expect(throws: ClinicError(.preconditionFailed)) {
            try IfMatch(field: "\"v2\"").requireIfPresent(version: 1)
        }
    }

    @Test(
        "what is no list of tags, or an endless one, is refused",
        arguments: [
            "", "v3", "\"v3", ",", "3", "*,\"v3\"",
            [String](repeating: "\"v3\"", count: 40).joined(separator: ","),
        ])
    func malformed(_ field: String) {
        #expect(throws: ClinicError(.invalidPrecondition)) { try IfMatch(field: field) }
    }
}
