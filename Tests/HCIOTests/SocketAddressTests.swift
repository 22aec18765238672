import Testing

@testable import HCIO

@Suite("Addresses of sockets")
struct SocketAddressTests {
    @Test(
        "an address is written as it is read",
        arguments: [
            "0.0.0.0", "255.255.255.255", "127.0.0.1", "10.0.100.9", "1.20.100.200", "192.168.10.1",
            "::1", "2001:db8::1",
        ])
    func text(_ host: String) throws {
        let address = try #require(SocketAddress(host: host, port: 80))
        #expect(address.host == host)
    }
}
