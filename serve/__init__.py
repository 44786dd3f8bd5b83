"""The bundle behind HTTP.

Takes a bundle folder; answers with probabilities, boxes and maps for an image. Needs no torch. The bundle and its
torch-free runtime stand in `weakray.bundle`; the server itself is not written yet.
"""
