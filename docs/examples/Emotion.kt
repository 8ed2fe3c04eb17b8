import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.nio.FloatBuffer

/** A bundle's model.int8.onnx on ONNX Runtime for Android or the JVM: one for the app, safe to share. */
class Emotion(model: ByteArray) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(model, OrtSession.SessionOptions().apply { setIntraOpNumThreads(1) })

    /** The emotions, as the graph carries them; labels with escaped letters are not read. */
    val labels: List<String> =
        Regex("\"(.*?)\"").findAll(session.metadata.customMetadata.getValue("labels")).map { it.groupValues[1] }.toList()

    /** Probability of each label, of speech: 16 kHz, one channel, in [-1, 1]. */
    fun predict(samples: FloatArray): Map<String, Float> {
        val loud = withoutSilence(samples)
        val input = loud.copyOf(maxOf(loud.size, SHORTEST))
        OnnxTensor.createTensor(environment, FloatBuffer.wrap(input), longArrayOf(1, input.size.toLong())).use { tensor ->
            session.run(mapOf("samples" to tensor)).use { result ->
                @Suppress("UNCHECKED_CAST")
                val probs = (result.get("probs").get().value as Array<FloatArray>)[0]
                return labels.zip(probs.toList()).toMap()
            }
        }
    }

    override fun close() = session.close()

    /** Frames at both ends that are 40 dB below the loudest one are left out, as in training. */
    private fun withoutSilence(samples: FloatArray): FloatArray {
        val energies = samples.asList().chunked(FRAME) { frame -> frame.sumOf { (it * it).toDouble() } }
        val floor = (energies.maxOrNull() ?: return samples) * QUIET
        val first = energies.indexOfFirst { it >= floor } * FRAME
        return samples.copyOfRange(first, minOf((energies.indexOfLast { it >= floor } + 1) * FRAME, samples.size))
    }

    private companion object {
        const val FRAME = 400
        const val QUIET = 1e-4
        const val SHORTEST = 1600
    }
}
