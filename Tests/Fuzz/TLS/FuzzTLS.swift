/// What libFuzzer calls with each input. The first byte says whether the bytes come before a handshake or after one,
/// and how they are cut; the rest is what a client sends.
///
/// Checked for every input: what is kept is bounded, the stream ends when its connection does, and nothing that did
/// not come through TLS reaches its owner. A broken promise ends the process, which libFuzzer reports with the input.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let input = UnsafeBufferPointer(start: data, count: count)
    guard count > 1 else { return 0 }
    TLSFuzzHarness.check(Array(input[1...]), mode: input[0])
    return 0
}

typealias Arguments = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

/// libFuzzer as a function (FuzzerInterface.h).
@_silgen_name("LLVMFuzzerRunDriver")
func runDriver(
    _ count: UnsafeMutablePointer<Int32>, _ arguments: UnsafeMutablePointer<Arguments>,
    _ test: @convention(c) (UnsafePointer<UInt8>, Int) -> Int32
) -> Int32

/// SwiftPM makes this symbol, named after the product, the program's entry: so libFuzzer's own `main` is not used.
@_cdecl("fuzz_tls_main")
func entry(_ count: Int32, _ arguments: Arguments) -> Int32 {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzzOneInput)
}
