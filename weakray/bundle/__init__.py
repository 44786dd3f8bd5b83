"""The bundle: the folder that `serve` needs, and nothing else. Its format, its hashes and its torch-free runtime.

`manifest` says what a bundle holds and checks it, `writing` makes one as a whole or not at all, `runtime` loads one and
predicts, `yolo` turns a detector's raw output into boxes, `graph` makes exported ONNX files repeatable byte for byte,
`parity` holds what the exports' checks against torch share.
"""
