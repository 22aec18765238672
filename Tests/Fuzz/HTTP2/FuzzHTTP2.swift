/// What libFuzzer calls with each input. The first two bytes say how the rest is cut; the third, whether the
/// connection's preface is put before it; the rest is what a client sends.
///
/// Checked for every input: cut or whole, the session comes to the same result; what it keeps and what it is about
/// to send is bounded; its books balance. A broken promise ends the process, which libFuzzer reports with the input.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let input = UnsafeBufferPointer(start: data, count: count)
    guard count > 3 else { return 0 }
    HTTP2FuzzHarness.check(
        Array(input[3...]), seed: UInt64(input[0]) << 8 | UInt64(input[1]),
        withPreface: input[2] & 1 == 0)
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
@_cdecl("fuzz_http2_main")
func entry(_ count: Int32, _ arguments: Arguments) -> Int32 {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzzOneInput)
}
