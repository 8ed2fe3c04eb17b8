import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # or Gradio reports its use to its makers
import gradio as gr

from mifuse_runtime import AudioError, Recognizer, read_audio

recognizer = Recognizer.load("bundle/")


def recognise(path: str | None) -> dict[str, float]:
    if path is None:
        raise gr.Error("record or upload something first")
    try:
        prediction = recognizer.predict(read_audio(path, recognizer.sample_rate, longest=60))
    except AudioError as error:
        raise gr.Error(str(error)) from error
    return {prediction.state: 1.0} if prediction.state not in prediction.scores else prediction.scores


demo = gr.Interface(
    recognise, gr.Audio(type="filepath", format="wav"), gr.Label(label="Emotion"), flagging_mode="never"
)

if __name__ == "__main__":
    demo.launch()
