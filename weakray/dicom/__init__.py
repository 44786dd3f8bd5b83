"""DICOM in: bytes → an 8-bit film, the rule that made it, and the few facts of its header that may be kept.

`reading` parses headers without trusting them, `codestream` looks at the size that compressed pixels really have,
`pixels` decodes one frame, `grey` turns its values into light, `header` keeps what an allow-list names, `film` joins
them. pydicom and its decoders are an extra (`weakray[dicom]`) and are imported inside functions.
"""
