"""ONNX files: the export of a workload's networks, their quantisation, and what ONNX Runtime did with them."""
