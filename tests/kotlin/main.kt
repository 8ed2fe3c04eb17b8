fun main(arguments: Array<String>) {
    Emotion("[\"angry\", \"calm\"]".toByteArray()).use { emotion ->
        for (line in generateSequence(::readlnOrNull)) {
            val samples = line.split(" ").filter { it.isNotEmpty() }.map { it.toFloat() }.toFloatArray()
            println(emotion.predict(samples))
        }
    }
}
