"""From a torch network to an ONNX graph that every backend accepts."""
