import HCControl
import HCCore
import HCIO

struct DoctorCommand: Command {
    static let specification = CommandSpecification(
        path: ["doctor"], summary: "Checks databases, keys, roles and placements; changes nothing.",
        options: [.value("migrations", "DIR", "Directory of migrations.")],
        examples: ["doctor", "doctor --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let findings = await Doctor(
            plane: try environment.plane(),
            catalog: try environment.catalog(invocation.option("migrations"))
        ).examine()
        let isWell = !findings.contains { $0.verdict == .failed }
        let table = Table(
            header: ["CHECK", "VERDICT", "DETAIL"],
            rows: findings.map { [$0.check, $0.verdict.rawValue, $0.detail] })
        return Report(
            json: [
                "healthy": .bool(isWell),
                "findings": .array(
                    findings.map {
                        [
                            "check": .string($0.check), "verdict": .string($0.verdict.rawValue),
                            "detail": .string($0.detail),
                        ]
                    }),
            ], text: table.render(), status: isWell ? .done : .failed)
    }
}
