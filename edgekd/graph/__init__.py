"""From a torch network to an ONNX graph that is checked after every pass, and back to numbers."""
