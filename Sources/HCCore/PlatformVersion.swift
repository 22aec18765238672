/// Which release of HC a program is.
package enum PlatformVersion {
    package static let text = "0.5.0"
}
