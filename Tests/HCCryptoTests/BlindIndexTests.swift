import HCCore
import Testing

@testable import HCCrypto

@Suite("blind indexes and search forms")
struct BlindIndexTests {
    let index: BlindIndex

    init() throws {
        index = try BlindIndex(key: SecretBytes(Array(0..<32)))
    }

    @Test("equal values have equal tokens; fields, keys and forms are apart")
    func tokens() throws {
        let token = try index.token(kind: "patient.familyName", value: "lovelace")
        #expect(token == (try index.token(kind: "patient.familyName", value: "lovelace")))
        #expect(token != (try index.token(kind: "patient.givenName", value: "lovelace")))
        #expect(token != (try index.token(kind: "patient.familyName", value: "lovelac")))
        let other = try BlindIndex(key: SecretBytes(Array(1..<33)))
        #expect(token != (try other.token(kind: "patient.familyName", value: "lovelace")))
        let prefix = try index.prefixToken(kind: "patient.familyName", prefix: "lovelace")
        #expect(token != prefix)
        // Where the kind ends and the value begins is part of the message.
        #expect(
            try index.token(kind: "ab", value: "c") != index.token(kind: "a", value: "bc"))
    }

    @Test("a token does not change with our code: stored ones depend on it")
    func stability() throws {
        #expect(
            try index.token(kind: "patient.phone", value: "+442079460958")
                == 342_577_542_895_287_320)
    }

    @Test("a value is found by its first one to twelve characters")
    func prefixes() throws {
        let kind: StaticString = "patient.familyName"
        let tokens = try index.prefixTokens(kind: kind, value: "featherstonehaugh")
        #expect(tokens.count == 12)
        #expect(Set(tokens).count == 12)
        for (position, typed) in ["f", "fe", "fea"].enumerated() {
            #expect(try index.prefixToken(kind: kind, prefix: typed) == tokens[position])
        }
        #expect(try index.prefixToken(kind: kind, prefix: "featherstonehaugh") == tokens[11])
        #expect(try index.prefixTokens(kind: kind, value: "li").count == 2)
        #expect(try index.prefixTokens(kind: kind, value: "").isEmpty)
        #expect(try index.prefixToken(kind: kind, prefix: "") == nil)
    }

    @Test(
        "names that are the same to a reader are the same to the search",
        arguments: [
            ("Lovelace", "lovelace"),
            ("  Łukasz   O’Brien-Nuñez ", "lukasz obrien nunez"),
            ("O'Brien", "obrien"), ("OʼBrien", "obrien"),
            ("Müller", "muller"), ("Mu\u{308}ller", "muller"), ("MÜLLER", "muller"),
            ("Groß", "gross"), ("Ærøskøbing", "aeroskobing"), ("Đặng Thị Hồng", "dang thi hong"),
            ("İbrahim", "ibrahim"), ("Ángel", "angel"), ("A\u{301}ngel", "angel"),
            ("Александр Йолкин", "александр иолкин"), ("Иоаннис", "иоаннис"),
            ("Γιώργος", "γιωργοσ"), ("ΓΙΏΡΓΟΣ", "γιωργοσ"),
            ("St. John, Jr.", "st john jr"), ("Jean\u{2011}Luc", "jean luc"),
            ("李 小龙", "李 小龙"), ("हिन्दी", "हिन्दी"), ("", ""), (" - ", ""), ("'", ""),
        ])
    func names(written: String, searched: String) {
        let folded = SearchText.name(written)
        // By scalars: String's own equality would hide a difference of normal form.
        #expect(Array(folded.unicodeScalars) == Array(searched.decomposed))
        #expect(Array(SearchText.name(folded).unicodeScalars) == Array(folded.unicodeScalars))
    }

    @Test(
        "phone numbers",
        arguments: [
            ("+44 (0)20 7946-0958", "+442079460958"), ("020 7946 0958", "02079460958"),
            ("0044 20 7946 0958", "+442079460958"), ("(555) 010-0199", "5550100199"),
            ("112", "112"), ("12", nil), ("+1234567890123456", nil), ("12+3456", nil),
            ("555-CALL", nil), ("", nil), ("+", nil), ("٠١٢٣٤", nil),
        ] as [(String, String?)])
    func phones(written: String, searched: String?) {
        #expect(SearchText.phone(written) == searched)
    }

    @Test("email addresses and record numbers")
    func others() {
        #expect(SearchText.email("  Ada@Example.ORG\n") == "ada@example.org")
        #expect(SearchText.identifier("MRN 00-12/ab") == "mrn0012ab")
    }
}

extension String {
    /// The text's scalars with Hangul and the like taken apart, as `SearchText.name` gives them.
    fileprivate var decomposed: [Unicode.Scalar] { Array(unicodeScalars) }
}
