/// The secrets that the keys of TLS session tickets are derived from.
package enum TicketKeys {
    /// - Returns: the active one first; the others open tickets that were made with them.
    /// - Throws: `KeyFileError`, whose description tells the operator what to do.
    package static func load(path: String) throws(KeyFileError) -> [SecretBytes] {
        try KeyFile.load(path: path, kind: "ticket key").map(\.key)
    }
}
