import HCCore
import HCTesting
import Testing

@testable import HCHTTP

@Suite("What a client accepts of content codings")
struct AcceptEncodingTests {
    @Test(
        "the highest weight wins, ties go to brotli, gzip, deflate",
        arguments: [
            ("", nil), ("gzip", .gzip), ("x-gzip", .gzip), ("GZIP", .gzip), ("br", .brotli),
            ("deflate", .deflate), ("gzip, deflate, br", .brotli), ("deflate, gzip", .gzip),
            ("gzip;q=1, br;q=0.9", .gzip), ("gzip;q=0.001", .gzip), ("gzip; q=1", .gzip),
            ("gzip ;q=1", .gzip), ("gzip\t;\tQ=0.5", .gzip), ("gzip;q=1.000", .gzip),
            ("gzip;q=0", nil), ("gzip;q=0.000", nil), ("gzip;q=0., br;q=0", nil),
            ("*", .brotli), ("*;q=0", nil), ("*;q=0, gzip", .gzip), ("br;q=0, *", .gzip),
            ("br;q=0,gzip;q=0,*;q=0.1", .deflate), ("gzip;q=0.2, *;q=0.5", .brotli),
            ("identity", nil), ("identity, gzip", .gzip), ("identity;q=1, gzip;q=0.5", nil),
            ("identity;q=0.5, gzip;q=0.5", .gzip), ("identity;q=0", nil),
            ("identity;q=0, gzip;q=0.1", .gzip), ("zstd, compress", nil),
            ("zstd, gzip;q=0.1", .gzip),
            (",, gzip ,,", .gzip), ("gzip;q=1, gzip;q=0", nil), ("gzip;q=0, x-gzip", nil),
        ] as [(String, ContentCoding?)])
    func choice(field: String, coding: ContentCoding?) {
        #expect(AcceptEncoding(field).choose() == coding)
    }

    @Test(
        "an element that cannot be read is as if it were not there",
        arguments: [
            "gzip;q=2", "gzip;q=1.001", "gzip;q=0.0001", "gzip;q=", "gzip;q=-1", "gzip;q=1.0.0",
            "gzip;q=.5", "gzip;level=9", "gzip;q=1;x=y", "gzip q=1", "gzip/1", "gz ip", ";q=1",
            "\"gzip\"", "gzip;q=0x1", "gzip;;q=1", "gzip; q =1", "gzip;q= 1",
        ])
    func malformed(field: String) {
        #expect(AcceptEncoding(field).choose() == nil)
        #expect(AcceptEncoding("br;q=0.1, " + field).choose() == .brotli)
        #expect(AcceptEncoding(field) == AcceptEncoding())
    }

    @Test(
        "identity is refused by name or by a star, unless it is named as well",
        arguments: [
            ("", false), ("gzip", false), ("identity;q=0", true), ("*;q=0", true),
            ("*;q=0, identity", false), ("*;q=0, identity;q=0.001", false), ("*;q=0.1", false),
            ("identity;q=0, *", true), ("identity;q=0.0", true),
        ])
    func identity(field: String, isRefused: Bool) {
        #expect(AcceptEncoding(field).refusesIdentity == isRefused)
    }

    @Test("several fields are one list")
    func lines() {
        let headers = HTTPHeaders([
            (.acceptEncoding, "gzip;q=0.5"), (.acceptEncoding, "br;q=0"),
            (.acceptEncoding, "*;q=0.7"),
        ])
        #expect(AcceptEncoding(headers).choose() == .deflate)
        #expect(AcceptEncoding(headers).choose(among: [.brotli, .gzip]) == nil)
        #expect(AcceptEncoding("gzip;q=0.5, br").choose(among: [.gzip]) == .gzip)
    }

    @Test("any field has an answer, and never a coding of weight nothing")
    func property() {
        var random = SeededRandom(seed: UInt64.random(in: 0...UInt64.max))
        let words = [
            "gzip", "br", "deflate", "identity", "*", ";", "q=", "0", "1", ".", "5", ",", " ",
            "x-gzip", "\t", "q", "zstd",
        ]
        for _ in 0..<2000 {
            let field = (0..<Int.random(in: 0...14, using: &random)).map { _ in
                words.randomElement(using: &random) ?? ""
            }.joined()
            let parsed = AcceptEncoding(field)
            for coding in ContentCoding.allCases {
                let refused = parsed == AcceptEncoding(field + ",\(coding.name);q=0")
                let chosen = parsed.choose(among: [coding])
                #expect(!refused || chosen == nil, "seed \(random.seed): \(field)")
            }
        }
    }
}

@Suite("Entity tags of coded content")
struct EntityTagsTests {
    @Test("a strong tag gets an ending, a weak one stays")
    func coded() {
        #expect(EntityTags.coded("\"v5\"", .gzip) == "\"v5-gzip\"")
        #expect(EntityTags.coded("\"\"", .brotli) == "\"-br\"")
        #expect(EntityTags.coded("W/\"v5\"", .gzip) == "W/\"v5\"")
        for broken in ["", "\"", "v5"] { #expect(EntityTags.coded(broken, .gzip) == broken) }
    }

    @Test(
        "endings come off strong tags of a list, and nothing else changes",
        arguments: [
            ("\"v5-gzip\"", "\"v5\""), ("\"v5-br\", \"v6-deflate\"", "\"v5\", \"v6\""),
            ("W/\"v5-gzip\"", "W/\"v5-gzip\""), ("*", "*"), ("\"v5\"", "\"v5\""),
            ("\"v5-gzip-gzip\"", "\"v5-gzip\""), ("\"-br\"", "\"\""), ("\"br\"", "\"br\""),
            ("\"v5-gzip", "\"v5-gzip"), ("v5-gzip", "v5-gzip"), ("\"a,b-br\"", "\"a,b\""),
            ("", ""),
        ])
    func uncoded(field: String, result: String) {
        #expect(EntityTags.uncoded(field) == result)
    }

    @Test("what was coded is uncoded again")
    func roundTrip() {
        for coding in ContentCoding.allCases {
            #expect(EntityTags.uncoded(EntityTags.coded("\"v17\"", coding)) == "\"v17\"")
        }
    }

    @Test(
        "If-None-Match is compared weakly, tag by tag",
        arguments: [
            ("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("\"b\",W/\"a\"", true),
            ("*", true), (" * ", true), ("\"b\"", false), ("", false), ("a", false),
            ("\"a", false), ("\"b\" \"a\"", false), ("*, \"a\"", false), ("\"x,\"a\"", false),
        ])
    func noneMatch(field: String, isListed: Bool) {
        #expect(EntityTags.isListed("\"a\"", in: field) == isListed)
        #expect(EntityTags.isListed("W/\"a\"", in: field) == isListed)
    }
}
