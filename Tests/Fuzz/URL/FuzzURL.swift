/// What libFuzzer calls with each input: a URL, and after a line feed where an answer to it redirects.
///
/// Checked for every input: what is accepted is understood in the same way by libcurl and by the C library, and a
/// guarded client reaches no address that an independent judge takes for one of a private network. A broken promise
/// ends the process, which libFuzzer reports with the input.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let input = UnsafeBufferPointer(start: data, count: count)
    let parts = input.split(separator: 0x0A, maxSplits: 1, omittingEmptySubsequences: false)
    URLFuzzHarness.check(
        String(decoding: parts[0], as: UTF8.self),
        location: parts.count > 1 ? String(decoding: parts[1], as: UTF8.self) : nil)
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
@_cdecl("fuzz_url_main")
func entry(_ count: Int32, _ arguments: Arguments) -> Int32 {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzzOneInput)
}
