import HCCore

/// A directory of static files, read once and served from memory: a request finds a name of the manifest or nothing,
/// so no path ever reaches the file system.
///
/// - A file is served under a name with its hash, `Cache-Control: public, max-age=31536000, immutable`.
/// - Documents keep their names and are revalidated each time (`no-cache`); the index is at the mount itself.
/// - Text is there in brotli and gzip as well, made at the start; each form has a strong tag of its own.
/// - `If-None-Match` is 304, `If-Match` 412; `Range` is 206 and counts bytes of the form that was chosen, as
///   RFC 9110 14 has it: a part of a coded form is of use only to who holds the rest of just that form, which
///   `If-Range` and the tag say.
///
/// A change of the directory is seen by the next process.
package final class AssetCatalog: Sendable {
    private struct Asset: Sendable {
        let type: AssetType
        let plain: AssetForm
        let coded: [ContentCoding: AssetForm]
        /// In the order of preference.
        let codings: [ContentCoding]
    }

    /// Begins and ends with a slash.
    package let mount: String
    private let assets: [String: Asset]
    /// Of the forms that were made by compressing.
    package let codedBytes: Int

    /// Smaller text is not worth a second form.
    private static let codedFromBytes = 1024
    private static let gzipLevel = 9
    private static let brotliQuality = 9

    /// What documents may do: load what is served beside them and talk to their own host, nothing else.
    package static let documentPolicy: StaticString = """
        default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
        font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
        form-action 'none'; frame-ancestors 'none'
        """

    /// Reads and prepares a directory. Blocks: to be called at the start.
    ///
    /// - Throws: `AssetError` with the file and what is wrong with it.
    package init(
        directory: String, mount: String, limits: AssetLimits = AssetLimits()
    ) throws(AssetError) {
        let manifest = try AssetManifest(try AssetDirectory.read(directory, limits), mount: mount)
        self.mount = mount
        let memory = BrotliMemory(keptBytesMax: 4 << 20)
        var assets: [String: Asset] = [:]
        var left = limits.bytesMax
        for entry in manifest.entries {
            do {
                assets[entry.name] = try AssetCatalog.prepare(entry, memory, &left)
            } catch {
                throw AssetError("\(directory): \(entry.name): \(error)")
            }
        }
        self.assets = assets
        codedBytes = limits.bytesMax - left
        guard assets[""] != nil else {
            throw AssetError("\(directory): there is no \(AssetManifest.index)")
        }
    }

    /// Whether a directory could be served, without the work of compressing it.
    ///
    /// - Throws: `AssetError` as `init`.
    package static func check(
        directory: String, mount: String, limits: AssetLimits = AssetLimits()
    ) throws(AssetError) {
        let manifest = try AssetManifest(try AssetDirectory.read(directory, limits), mount: mount)
        guard manifest.entries.contains(where: { $0.name.isEmpty }) else {
            throw AssetError("\(directory): there is no \(AssetManifest.index)")
        }
    }

    /// The names that are served, behind the mount; "" is the index.
    package var names: [String] { assets.keys.sorted() }

    private static func prepare(
        _ entry: AssetManifest.Entry, _ memory: BrotliMemory, _ left: inout Int
    ) throws -> Asset {
        let plain = AssetForm(entry.bytes, entry.hash, nil)
        var coded: [ContentCoding: AssetForm] = [:]
        var codings: [ContentCoding] = []
        let isText = entry.type.mediaType.withUTF8Buffer {
            CompressionConfiguration.isCompressible(mediaType: UnsafeRawBufferPointer($0))
        }
        if isText, entry.bytes.count >= codedFromBytes {
            for coding in [ContentCoding.brotli, .gzip] {
                guard let bytes = encode(entry.bytes, coding, memory),
                    bytes.count < entry.bytes.count - entry.bytes.count / 10, bytes.count <= left
                else { continue }
                left -= bytes.count
                coded[coding] = AssetForm(bytes, try AssetManifest.hash(bytes), coding)
                codings.append(coding)
            }
        }
        return Asset(type: entry.type, plain: plain, coded: coded, codings: codings)
    }

    /// Nil if there is no memory: then the plain form is served.
    private static func encode(
        _ bytes: [UInt8], _ coding: ContentCoding, _ memory: BrotliMemory
    ) -> [UInt8]? {
        do {
            let encoder: any ContentEncoder =
                coding == .brotli
                ? try BrotliEncoder(quality: brotliQuality, count: bytes.count, memory: memory)
                : try ZlibEncoder(coding, level: gzipLevel)
            var output = ByteBuffer(reserving: bytes.count / 3)
            try bytes.withUnsafeBytes { try encoder.encode($0, .finish, into: &output) }
            return output.bytes
        } catch {
            return nil
        }
    }

    /// The answer to GET and HEAD of one name.
    ///
    /// - Throws: `Problem.notFound` for whatever is not in the manifest.
    package func response(to request: HTTPRequest, name: String) throws(Problem) -> HTTPResponse {
        guard let asset = assets[name] else { throw .notFound }
        let coding =
            asset.codings.isEmpty || !request.headers.contains(.acceptEncoding)
            ? nil : AcceptEncoding(request.headers).choose(among: asset.codings)
        let form = coding.flatMap { asset.coded[$0] } ?? asset.plain
        var response = HTTPResponse(.ok)
        response.headers.append(.etag, form.tag)
        response.headers.append(
            .cacheControl,
            asset.type == .document
                ? "no-cache" as StaticString : "public, max-age=31536000, immutable")
        if !asset.codings.isEmpty {
            response.headers.append(.vary, "Accept-Encoding" as StaticString)
        }
        switch form.verdict(on: request) {
        case .isStale: throw .preconditionFailed
        case .isHeld:
            response.status = .notModified
            return response
        case .isWanted: break
        }
        response.headers.append("Accept-Ranges", "bytes" as StaticString)
        if let coding { response.headers.append(.contentEncoding, coding.name) }
        if asset.type == .document {
            response.headers.append(.contentSecurityPolicy, AssetCatalog.documentPolicy)
            response.headers.append("Cross-Origin-Embedder-Policy", "require-corp" as StaticString)
        }
        try form.fill(&response, for: request, asset.type.mediaType)
        return response
    }
}
