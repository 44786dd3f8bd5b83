"""weakray: from image-level labels to an object detector for chest X-rays.

This package holds what every stage shares (records, taxonomy, boxes, imaging, configuration, run folders,
the bundle, errors, file formats). It needs no torch and imports none of the stages, except inside the
functions of `weakray.cli` and `weakray.pipeline`.
"""

__version__ = "0.1.0"
