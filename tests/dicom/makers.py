"""Makers of small DICOM files in every transfer syntax that can be written here."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset, FileDataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {"jpeg_2000": JPEG2000Lossless, "jpeg_ls": JPEGLSLossless, "rle": RLELossless}
LOSSLESS = (*NATIVE, *COMPRESSED, "jpeg_lossless")


def light(seed: int, height: int = 40, width: int = 56, bits: int = 12) -> npt.NDArray[np.uint16]:
    """A seeded film of `bits`: a slope with noise, its least and greatest value both there."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0.1, 0.8, height * width).reshape(height, width)
    values = ((slope + rng.uniform(0, 0.1, slope.shape)) * ((1 << bits) - 1)).astype(np.uint16)
    values[0, 0], values[-1, -1] = 0, (1 << bits) - 1
    return values


def dataset(pixels: npt.NDArray[Any], bits: int = 12, **elements: Any) -> FileDataset:
    """A DX data set around pixels `(h, w)`, `(frames, h, w)` or RGB `(h, w, 3)`; `elements` go over the rest."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colour else 1
    plain = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "PatientID": "MRN-77",
        "PatientName": "Doe^Jane",
        "PatientSex": "F",
        "PatientAge": "045Y",
        "PatientBirthDate": "19800101",
        "StudyDate": "20250102",
        "Modality": "DX",
        "ViewPosition": "PA",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": pixels.shape[0 if colour else -2],
        "Columns": pixels.shape[1 if colour else -1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    plain |= {"PlanarConfiguration": 0} if colour else {}
    plain |= {"NumberOfFrames": frames} if frames > 1 else {}
    for keyword, value in {**plain, **elements}.items():
        setattr(found, keyword, value)
    found.PixelData = pixels.tobytes()
    found["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    found.private_block(0x0011, "Hospital X", create=True).add_new(1, "LO", "Doe, Jane, ward 7")
    return found


def content(found: Dataset, syntax: str = "explicit") -> bytes:
    """The bytes of a data set with native pixels, stored under a transfer syntax."""
    if syntax == "jpeg_lossless":
        return _jpeg_lossless(content(found))
    if syntax == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(found.pixel_array).save(buffer, "JPEG", quality=95)
        found.PixelData = encapsulate([buffer.getvalue()])
        found["PixelData"].VR = "OB"
        found.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    elif syntax in COMPRESSED:
        found.compress(COMPRESSED[syntax], generate_instance_uid=False)
    else:
        found.file_meta.TransferSyntaxUID = NATIVE[syntax]
        if syntax == "big_endian" and found.BitsAllocated == 16:
            found.PixelData = np.frombuffer(found.PixelData, "<u2").astype(">u2").tobytes()
    buffer = io.BytesIO()
    little, implicit = syntax != "big_endian", syntax == "implicit"
    dcmwrite(buffer, found, enforce_file_format=True, little_endian=little, implicit_vr=implicit, overwrite=True)
    return buffer.getvalue()


def _jpeg_lossless(native: bytes) -> bytes:
    """pydicom writes none, gdcm does; it needs a file on disk, so the file lies in memory."""
    import gdcm

    source, target = (os.memfd_create(name) for name in ("source", "target"))
    try:
        os.write(source, native)
        reader = gdcm.ImageReader()
        reader.SetFileName(f"/proc/self/fd/{source}")
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(f"/proc/self/fd/{target}")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        size = os.lseek(target, 0, os.SEEK_END)
        os.lseek(target, 0, os.SEEK_SET)
        written = os.read(target, size)
    finally:
        os.close(source)
        os.close(target)
    assert JPEGLosslessSV1.encode() in written[:1000]
    return written
