import Foundation
import OnnxRuntimeBindings

/// A bundle's model.int8.onnx on ONNX Runtime's Swift package; one for the app.
final class Emotion {
    let labels: [String]
    private let environment: ORTEnv
    private let session: ORTSession
    private let (frame, quiet, shortest) = (400, Float(1e-4), 1600)

    /// `labels` as in the bundle's bundle.json: the Swift package does not read those of the graph.
    init(model: URL, bundle: URL) throws {
        struct Card: Decodable { let labels: [String] }
        labels = try JSONDecoder().decode(Card.self, from: Data(contentsOf: bundle)).labels
        environment = try ORTEnv(loggingLevel: .warning)
        let options = try ORTSessionOptions()
        try options.setIntraOpNumThreads(1)
        session = try ORTSession(env: environment, modelPath: model.path, sessionOptions: options)
    }

    /// Probability of each label, of speech: 16 kHz, one channel, in [-1, 1].
    func predict(_ samples: [Float]) throws -> [String: Float] {
        var input = withoutSilence(samples)
        input += [Float](repeating: 0, count: max(0, shortest - input.count))
        let data = NSMutableData(bytes: input, length: input.count * MemoryLayout<Float>.stride)
        let shape = [1, NSNumber(value: input.count)]
        let tensor = try ORTValue(tensorData: data, elementType: .float, shape: shape)
        let outputs = try session.run(withInputs: ["samples": tensor], outputNames: ["probs"], runOptions: nil)
        let probs = try outputs["probs"]!.tensorData() as Data
        return Dictionary(uniqueKeysWithValues: zip(labels, probs.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }))
    }

    /// Frames at both ends that are 40 dB below the loudest one are left out, as in training.
    private func withoutSilence(_ samples: [Float]) -> [Float] {
        let energies = stride(from: 0, to: samples.count, by: frame).map { start in
            samples[start..<min(start + frame, samples.count)].reduce(0) { $0 + $1 * $1 }
        }
        guard let loudest = energies.max() else { return samples }
        let loud = energies.indices.filter { energies[$0] >= loudest * quiet }
        return Array(samples[loud.first! * frame..<min((loud.last! + 1) * frame, samples.count)])
    }
}
