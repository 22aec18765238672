import CCurl

/// Owns an easy handle: curl_easy_init to curl_easy_cleanup. What curl does not copy is kept with it.
///
/// The pointer leaves this file for the files beside it only: the multi handle knows its easy handles by it.
struct CurlEasy: ~Copyable {
    /// curl_global_init is called once, before any handle, as libcurl wants it.
    static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    let pointer: UnsafeMutableRawPointer
    private var lists: [UnsafeMutablePointer<curl_slist>] = []

    init?() {
        guard CurlEasy.isReady, let pointer = curl_easy_init() else { return nil }
        self.pointer = pointer
    }

    deinit {
        curl_easy_cleanup(pointer)
        for list in lists { curl_slist_free_all(list) }
    }

    // An option that is refused is one that this libcurl does not have: the process cannot keep its promises then.
    func set(_ option: CURLoption, _ value: Int) {
        require(hc_curl_set_long(pointer, option, value), option)
    }

    /// For options that take a curl_off_t.
    func setOffset(_ option: CURLoption, _ value: Int) {
        require(hc_curl_set_offset(pointer, option, value), option)
    }

    /// curl copies the string.
    func set(_ option: CURLoption, _ value: String) {
        require(hc_curl_set_string(pointer, option, value), option)
    }

    func set(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) {
        require(hc_curl_set_pointer(pointer, option, value), option)
    }

    mutating func set(_ option: CURLoption, lines: [String]) {
        var list: UnsafeMutablePointer<curl_slist>?
        for line in lines {
            guard let longer = curl_slist_append(list, line) else {
                preconditionFailure("out of memory")
            }
            list = longer
        }
        guard let list else { return }
        lists.append(list)
        require(hc_curl_set_pointer(pointer, option, list), option)
    }

    /// CURLOPT_COPYPOSTFIELDS copies as many bytes as POSTFIELDSIZE says; it wants a pointer also for none.
    func setContent(_ bytes: [UInt8]) {
        setOffset(CURLOPT_POSTFIELDSIZE_LARGE, bytes.count)
        var none: UInt8 = 0
        withUnsafeMutableBytes(of: &none) { spare in
            bytes.withUnsafeBytes { bytes in
                set(
                    CURLOPT_COPYPOSTFIELDS,
                    UnsafeMutableRawPointer(mutating: bytes.baseAddress) ?? spare.baseAddress)
            }
        }
    }

    private func require(_ code: CURLcode, _ option: CURLoption) {
        precondition(code == CURLE_OK, "curl refuses option \(option.rawValue): \(code.rawValue)")
    }
}
