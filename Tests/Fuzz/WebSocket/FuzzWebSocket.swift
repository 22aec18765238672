/// What libFuzzer calls with each input. The first two bytes say how the rest is cut, the third what was agreed on
/// about compression, the rest is what a client sends.
///
/// Checked for every input: cut or whole, the decoder comes to the same messages and the same error; no more is
/// kept than the limits allow; what we encode is decoded as what it was. A broken promise ends the process, which
/// libFuzzer reports with the input.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let input = UnsafeBufferPointer(start: data, count: count)
    guard count > 3 else { return 0 }
    let harness = WebSocketFuzzHarness(agreement: input[2])
    harness.check(Array(input[3...]), seed: UInt64(input[0]) << 8 | UInt64(input[1]))
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
@_cdecl("fuzz_websocket_main")
func entry(_ count: Int32, _ arguments: Arguments) -> Int32 {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzzOneInput)
}
