"""Old environments, conversion to ONNX and the parity gate."""
