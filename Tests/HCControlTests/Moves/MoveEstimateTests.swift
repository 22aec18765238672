import Testing

@testable import HCControl

@Suite("How long a copy will go on")
struct MoveEstimateTests {
    @Test("by what is done, once there is something to tell by")
    func estimate() {
        #expect(MoveEstimate.left(done: 50_000, of: 200_000, after: .seconds(2)) == .seconds(6))
        #expect(MoveEstimate.left(done: 200_100, of: 200_000, after: .seconds(2)) == .zero)
        #expect(MoveEstimate.left(done: 0, of: 200_000, after: .seconds(2)) == nil)
        #expect(MoveEstimate.left(done: 1_000, of: 200_000, after: .seconds(2)) == nil)
        #expect(MoveEstimate.left(done: 50_000, of: 200_000, after: .milliseconds(900)) == nil)
        #expect(MoveEstimate.left(done: 0, of: 0, after: .seconds(2)) == nil)
    }
}
