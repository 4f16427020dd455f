"""Models of other library versions in environments of their time, conversion to ONNX, and the gate that proves it."""
