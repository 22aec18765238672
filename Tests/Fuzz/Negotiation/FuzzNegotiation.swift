/// What libFuzzer calls with each input. The first byte says what the rest is: a field, the head of somebody's answer to
/// us, or the content of a request.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let input = UnsafeBufferPointer(start: data, count: count)
    guard let kind = input.first else { return 0 }
    let rest = Array(input.dropFirst())
    switch kind {
    case UInt8(ascii: "e"): NegotiationFuzzHarness.checkAcceptEncoding(rest)
    case UInt8(ascii: "o"): NegotiationFuzzHarness.checkOrigin(rest)
    case UInt8(ascii: "t"): NegotiationFuzzHarness.checkTags(rest)
    case UInt8(ascii: "b"): NegotiationFuzzHarness.checkRanges(rest)
    case UInt8(ascii: "p"): NegotiationFuzzHarness.checkTrace(rest)
    case UInt8(ascii: "r"): NegotiationFuzzHarness.checkRetryAfter(rest)
    case UInt8(ascii: "h"): NegotiationFuzzHarness.checkHead(rest)
    default: NegotiationFuzzHarness.checkGzip(rest, seed: kind)
    }
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
@_cdecl("fuzz_negotiation_main")
func entry(_ count: Int32, _ arguments: Arguments) -> Int32 {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzzOneInput)
}
