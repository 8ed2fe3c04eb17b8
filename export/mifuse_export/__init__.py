"""Student to bundle: ONNX, int8, OpenVINO."""
