"""The voice-activity gate beside silero-vad: `python -m benchmarks.voice`."""
