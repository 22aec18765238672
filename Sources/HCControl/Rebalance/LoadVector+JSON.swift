package import HCCore

extension LoadVector {
    /// Every dimension by its name.
    package var json: JSONValue {
        var object = JSONObject()
        for dimension in LoadDimension.allCases {
            object.set(.double(self[dimension]), for: dimension.name)
        }
        return .object(object)
    }

    /// What is not named is 0.
    ///
    /// - Throws: `RebalanceFormatError` for a name that no dimension has, and what is no amount.
    package init(json: JSONValue, what: String) throws(RebalanceFormatError) {
        guard let object = json.asObject else {
            throw RebalanceFormatError("\(what) is \(json.kind), not an object of amounts")
        }
        self.init()
        for member in object.members {
            let (name, value) = (member.name, member.value)
            guard let dimension = LoadDimension.allCases.first(where: { $0.name == name }) else {
                throw RebalanceFormatError(
                    "\(what) has '\(name)', which is none of "
                        + LoadDimension.allCases.map(\.name).joined(separator: ", "))
            }
            guard let amount = value.asDouble, amount.isFinite, amount >= 0 else {
                throw RebalanceFormatError("\(what) has \(name) that is no amount")
            }
            self[dimension] = amount
        }
    }
}

/// A file of the rebalancer that is not what it should be, and where.
package struct RebalanceFormatError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}
