"""Geometry of boxes: overlap, non-maximum suppression. Boxes are `(n, 4)` float32 xyxy, pixels, half-open."""
