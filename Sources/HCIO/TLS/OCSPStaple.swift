internal import COpenSSL
internal import HCCore

/// The answer of a certificate's OCSP responder, sent with the certificate (RFC 6066 8).
struct OCSPStaple {
    let bytes: [UInt8]
    /// When there will be a newer one: from then on it is not sent, for clients would refuse it.
    let expires: Timestamp

    private static let bytesMax = 64 << 10

    /// - Returns: nil if there is no such file.
    /// - Throws: what keeps the answer from being used.
    static func load(
        file: String, certificate: OpaquePointer, now: Timestamp
    ) throws(TLSFileProblem) -> OCSPStaple? {
        func refuse(_ problem: String) -> TLSFileProblem {
            TLSFileProblem(
                file: file, problem: problem,
                remedy: "fetch it anew (openssl ocsp -respout), or remove the file")
        }
        let bytes: [UInt8]
        do throws(Files.FileError) {
            bytes = try Files.read(file, bytesMax: bytesMax)
        } catch {
            if error.isMissing { return nil }
            throw refuse("\(error)")
        }
        ERR_clear_error()
        defer { ERR_clear_error() }
        var position: UnsafePointer<UInt8>?
        let parsed = bytes.withUnsafeBufferPointer { buffer -> OpaquePointer? in
            position = buffer.baseAddress
            return d2i_OCSP_RESPONSE(nil, &position, buffer.count)
        }
        guard let parsed else { throw refuse("is no OCSP response in DER") }
        defer { OCSP_RESPONSE_free(parsed) }
        guard OCSP_response_status(parsed) == OCSP_RESPONSE_STATUS_SUCCESSFUL,
            let basic = OCSP_response_get1_basic(parsed)
        else { throw refuse("is a responder's refusal") }
        defer { OCSP_BASICRESP_free(basic) }
        for index in 0..<OCSP_resp_count(basic) {
            guard let single = OCSP_resp_get0(basic, index) else { continue }
            guard isAbout(certificate, single) else { continue }
            var nextUpdate: UnsafeMutablePointer<ASN1_GENERALIZEDTIME>?
            let status = OCSP_single_get0_status(single, nil, nil, nil, &nextUpdate)
            guard status == V_OCSP_CERTSTATUS_GOOD else {
                throw refuse("says that the certificate is revoked or unknown")
            }
            // Without a next update, newer answers are there at any time (RFC 6960 4.2.2.1): good for a day.
            let expires = nextUpdate.map { Timestamp(asn1: $0) } ?? now + .seconds(86_400)
            guard expires > now else { throw refuse("was good until \(expires)") }
            return OCSPStaple(bytes: bytes, expires: expires)
        }
        throw refuse("is about another certificate")
    }

    private static func isAbout(_ certificate: OpaquePointer, _ single: OpaquePointer) -> Bool {
        var serial: UnsafeMutablePointer<ASN1_INTEGER>?
        // The id belongs to the answer (OCSP_SINGLERESP_get0_id).
        let id = OCSP_SINGLERESP_get0_id(single)
        guard OCSP_id_get0_info(nil, nil, nil, &serial, id) == 1, let serial else { return false }
        return ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) == 0
    }
}
