import HCCore
import HCCrypto
import HCTesting
import Testing

@testable import HCHTTP

/// The examples are those of "Signature Calculations for the Authorization Header" and "Authenticating Requests: Using
/// Query Parameters" in the S3 API reference, and of the Signature Version 4 guide and test suite.
@Suite("Requests are signed as the published examples are")
struct SignatureV4Tests {
    private static let storage = SignatureV4(
        .init(
            accessKeyID: "AKIAIOSFODNN7EXAMPLE",
            secretAccessKey: Sensitive("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
        region: "us-east-1", service: "s3")
    private static let may2013 = Timestamp(rfc3339: "2013-05-24T00:00:00Z")
    private static let august2015 = Timestamp(rfc3339: "2015-08-30T12:36:00Z")

    private static func other(_ service: String) -> SignatureV4 {
        SignatureV4(
            .init(
                accessKeyID: "AKIDEXAMPLE",
                secretAccessKey: Sensitive("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
            region: "us-east-1", service: service)
    }

    private func signature(_ headers: HTTPHeaders) -> String? {
        headers[.authorization]?.split(separator: "=").last.map(String.init)
    }

    struct Example: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var method = HTTPMethod.get
        var target: String
        var headers: [(HTTPFieldName, String)] = []
        var content = ""
        var signature: String
    }

    static let storageExamples = [
        Example(
            testDescription: "GET object with a range", target: "/test.txt",
            headers: [("Range", "bytes=0-9")],
            signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        Example(
            testDescription: "PUT object", method: .put, target: "/test$file.text",
            headers: [
                ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ], content: "Welcome to Amazon S3.",
            signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        Example(
            testDescription: "the same, the key encoded", method: .put, target: "/test%24file.text",
            headers: [
                ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ], content: "Welcome to Amazon S3.",
            signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        Example(
            testDescription: "GET bucket lifecycle", target: "/?lifecycle",
            signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        Example(
            testDescription: "list objects", target: "/?max-keys=2&prefix=J",
            signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        Example(
            testDescription: "the same, the query in another order",
            target: "/?prefix=J&max-keys=2",
            signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ]

    @Test("object storage, in a header", arguments: storageExamples)
    func storage(_ example: Example) throws {
        let url = try OutboundURL("https://examplebucket.s3.amazonaws.com\(example.target)")
        let payload: SignatureV4.Payload =
            example.content.isEmpty ? .empty : .digest(try SHA256.hash(example.content))
        let signed = try Self.storage.sign(
            example.method, url, headers: HTTPHeaders(example.headers), payload: payload,
            at: try #require(Self.may2013))
        #expect(signature(signed) == example.signature)
        #expect(signed["x-amz-content-sha256"] == payload.text)
        #expect(signed["x-amz-date"] == "20130524T000000Z")
    }

    @Test("object storage, in a URL")
    func presigned() throws {
        let url = try Self.storage.presign(
            .get, OutboundURL("https://examplebucket.s3.amazonaws.com/test.txt"),
            validity: .seconds(86_400), at: try #require(Self.may2013))
        #expect("\(url)" == "***")
        #expect(
            url.reveal() == "https://examplebucket.s3.amazonaws.com/test.txt"
                + "?X-Amz-Algorithm=AWS4-HMAC-SHA256"
                + "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
                + "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
                + "&X-Amz-Signature="
                + "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")
        #expect(throws: Never.self) { try OutboundURL(url.reveal()) }
    }

    @Test("other services: a list of users, and the test suite's plain requests")
    func services() throws {
        let time = try #require(Self.august2015)
        let users = try Self.other("iam").sign(
            .get, OutboundURL("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"),
            headers: HTTPHeaders([
                (.contentType, "application/x-www-form-urlencoded; charset=utf-8")
            ]), payload: .empty, at: time)
        #expect(
            signature(users) == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")
        #expect(users["x-amz-content-sha256"] == nil)
        let plain = try OutboundURL("https://example.amazonaws.com/")
        for (method, expected) in [
            (HTTPMethod.get, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (.post, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let signed = try Self.other("service").sign(
                method, plain, headers: HTTPHeaders(), payload: .empty, at: time)
            #expect(signature(signed) == expected)
        }
    }

    @Test("a session's token is signed; what changes on the way is not")
    func fields() throws {
        let signer = SignatureV4(
            .init(
                accessKeyID: "A", secretAccessKey: Sensitive("B"),
                sessionToken: Sensitive("token")), region: "eu-central-1", service: "s3")
        let signed = try signer.sign(
            .get, OutboundURL("https://b.example:9000/k"),
            headers: HTTPHeaders([
                (.userAgent, "x"), ("X-Amz-Meta-A", " one   two "), (.range, "b"),
            ]),
            payload: .unsigned, at: try #require(Self.august2015))
        let authorization = try #require(signed[.authorization])
        #expect(
            authorization.contains(
                "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date;x-amz-meta-a;"
                    + "x-amz-security-token,"))
        #expect(authorization.contains("Credential=A/20150830/eu-central-1/s3/aws4_request"))
        #expect(signed["x-amz-security-token"] == "token")
        #expect(signed["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD")
        let url = try signer.presign(
            .put, OutboundURL("https://b.example/k?partNumber=1"), validity: .seconds(60),
            at: try #require(Self.august2015))
        #expect(url.reveal().contains("&X-Amz-Security-Token=token&"))
        #expect(url.reveal().contains("&partNumber=1&X-Amz-Signature="))
    }

    @Test("keys of objects become paths")
    func paths() throws {
        let key = "clinic/ä b+c$&=@:,;~_.-%/x//y"
        let path = PercentEncoding.path(of: key)
        #expect(path == "/clinic/%C3%A4%20b%2Bc%24%26%3D%40%3A%2C%3B~_.-%25/x//y")
        #expect(try OutboundURL("https://s3.example\(path)").path == path)
    }

    @Test("secrets do not print")
    func secrets() {
        #expect(!"\(Self.storage)".contains("bPxRfi"))
    }
}

@Suite("Traces go on")
struct OutboundTraceTests {
    @Test("the trace stays, the span is new each time, the vendors' state is kept")
    func spans() throws {
        let context = try #require(
            TraceContext(traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        let trace = OutboundTrace(context, state: "a=1,b=2")
        var random = SeededRandom(seed: 1)
        let first = try #require(TraceContext(traceparent: trace.traceparent(using: &random)))
        let second = try #require(TraceContext(traceparent: trace.traceparent(using: &random)))
        #expect(first.traceID == context.traceID && first.isSampled)
        #expect(Set([context.parentID, first.parentID, second.parentID]).count == 3)
        #expect(trace.state == "a=1,b=2")
        #expect(OutboundTrace(context, state: "").state == nil)
        #expect(OutboundTrace(context, state: String(repeating: "a", count: 513)).state == nil)
    }
}
