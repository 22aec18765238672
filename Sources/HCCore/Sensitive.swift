/// A value that must not be printed: patient data, passwords, connection strings.
///
/// Printed, interpolated, dumped or reflected it is `***`. Whoever needs the value says `reveal()`, which
/// can be searched for. It does not wipe memory: keys belong in HCCrypto's `SecretBytes`.
package struct Sensitive<Value>: CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    private let value: Value

    package init(_ value: Value) {
        self.value = value
    }

    package func reveal() -> Value { value }

    package func map<Result, Failure: Error>(
        _ transform: (Value) throws(Failure) -> Result
    ) throws(Failure) -> Sensitive<Result> {
        Sensitive<Result>(try transform(value))
    }

    package var description: String { "***" }
    package var debugDescription: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

extension Sensitive: Sendable where Value: Sendable {}
extension Sensitive: Equatable where Value: Equatable {}
extension Sensitive: Hashable where Value: Hashable {}
