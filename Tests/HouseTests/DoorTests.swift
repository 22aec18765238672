import CBrotli
import CCurl
import CHiredis
import CLibPQ
import CLinux
import CNGHTTP2
import COpenSSL
import CZlib
import Testing

/// Every C library is there, is linked, and is of a version we can stand on.
@Suite("The doors to C open")
struct DoorTests {
    @Test("Linux: an event's data comes back as it went in")
    func linux() {
        var event = hc_epoll_event(UInt32(EPOLLIN.rawValue), 0xdead_beef_cafe_f00d)
        #expect(hc_epoll_data(&event) == 0xdead_beef_cafe_f00d)
    }

    @Test("zlib computes the check value of CRC-32")
    func zlib() {
        let bytes = Array("123456789".utf8)
        #expect(crc32(0, bytes, UInt32(bytes.count)) == 0xcbf4_3926)
        #expect(compressBound(100) >= 100)
    }

    @Test("brotli's encoder and decoder are of one version")
    func brotli() {
        #expect(BrotliEncoderVersion() >= 0x0100_0000)
        #expect(BrotliEncoderVersion() == BrotliDecoderVersion())
    }

    @Test("nghttp2 is 1.x")
    func nghttp2() throws {
        let version = try #require(nghttp2_version(0))
        #expect(version.pointee.version_num >= 0x01_2900)
    }

    @Test("libcurl speaks TLS")
    func curl() throws {
        let version = try #require(curl_version_info(CURLVERSION_FIRST))
        #expect(version.pointee.version_num >= 0x07_5800)
        #expect(version.pointee.features & CURL_VERSION_SSL != 0)
    }

    @Test("libpq is PostgreSQL 15 or later, and safe to use from threads")
    func libpq() {
        #expect(PQlibVersion() >= 150_000)
        #expect(PQisthreadsafe() == 1)
    }

    @Test("OpenSSL is 3.x")
    func openssl() {
        #expect(OpenSSL_version_num() >= 0x3000_0000)
    }

    @Test("hiredis' reader takes a reply in pieces")
    func hiredis() throws {
        let reader = try #require(redisReaderCreate())
        defer { redisReaderFree(reader) }
        var reply: UnsafeMutableRawPointer?
        #expect(redisReaderFeed(reader, "$5\r\nhe", 6) == REDIS_OK)
        #expect(redisReaderGetReply(reader, &reply) == REDIS_OK)
        #expect(reply == nil)
        #expect(redisReaderFeed(reader, "llo\r\n", 5) == REDIS_OK)
        #expect(redisReaderGetReply(reader, &reply) == REDIS_OK)
        let whole = try #require(reply)
        defer { freeReplyObject(whole) }
        let value = whole.assumingMemoryBound(to: redisReply.self).pointee
        #expect(value.type == REDIS_REPLY_STRING)
        #expect(value.len == 5)
        #expect(value.str.map { String(cString: $0) } == "hello")
    }
}
