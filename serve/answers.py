"""What the server answers, as types: the API's contract, and the source of its OpenAPI text."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Agreement = Literal["agree", "box_without_decision", "decision_without_box"]
Source = Literal["png", "jpeg", "png16", "dicom"]


class Answer(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Fault(Answer):
    """Why a request was not answered."""

    code: str = Field(description="one word for programs", examples=["too_large"])
    message: str = Field(description="what was expected, what came, how to mend it")


class Refused(Answer):
    """The answer to every request that is not served."""

    error: Fault


class BundleName(Answer):
    """Which bundle spoke."""

    weakray: str = Field(description="version of weakray that made the bundle", examples=["0.1.0"])
    sha256: str = Field(description="SHA-256 of its bundle.json, which holds the hash of every other file")


class StudyFinding(Answer):
    """A finding of the study as a whole."""

    finding: str
    probability: float = Field(ge=0, le=1, description="σ of the mean over the images of logit(probability)")
    threshold: float = Field(ge=0, le=1)
    decision: bool = Field(description="probability >= threshold")


class Study(Answer):
    """All images of the request together."""

    findings: list[StudyFinding] = Field(description="in taxonomy order")


class Box(Answer):
    """Where the detector sees a finding."""

    xyxy_px: tuple[float, float, float, float] = Field(
        description="x0, y0, x1, y1 in pixels of the image as stored, half-open",
        examples=[[410.5, 300.0, 520.25, 380.0]],
    )
    score: float = Field(ge=0, le=1, description="the detector's score, at least the finding's score threshold")


class Heat(Answer):
    """A finding's map over the film."""

    png: str = Field(description="base64 of an 8-bit grey PNG over the whole film, at about the map's own resolution")
    low: float = Field(description="what grey 0 stands for")
    high: float = Field(description="what grey 255 stands for; low where the map is flat")


class ImageFinding(Answer):
    """A finding of one image: what the classifiers say, what the detector says, and whether they agree."""

    finding: str
    parent: str | None = Field(description="the finding above it in the class tree")
    probability: float = Field(ge=0, le=1, description="of the calibrated ensemble of classifiers")
    threshold: float = Field(ge=0, le=1)
    decision: bool = Field(description="probability >= threshold")
    agreement: Agreement = Field(description="whether the classifiers' decision and the detector's boxes agree")
    boxes: list[Box] = Field(description="best first")
    map: Heat | None = Field(description="null unless asked for")


class ImageAnswer(Answer):
    """What is said of one image."""

    index: int = Field(ge=0, description="its place among the request's parts")
    height: int = Field(ge=1, description="of the image as stored, pixels")
    width: int = Field(ge=1)
    source: Source
    notes: list[str] = Field(description="what was done to it, or is odd about it", examples=[["MONOCHROME1 inverted"]])
    findings: list[ImageFinding] = Field(description="in taxonomy order")
    film: str | None = Field(description="base64 of an 8-bit PNG of the decoded film; null unless asked for")


class Timings(Answer):
    """Where the time went, milliseconds of wall time; for several images, of the slowest."""

    queue: float = Field(description="waiting for the graphs")
    decode: float
    prepare: float = Field(description="scaling to what the models see")
    predict: float = Field(description="the pass through the graphs, of the whole batch")
    encode: float = Field(description="maps and film as PNG")
    total: float = Field(description="from the end of the body to the answer")


class Predicted(Answer):
    """The answer to `POST /v1/predict`."""

    request_id: str = Field(description="stands in the server's log too, and in the header X-Request-ID")
    bundle: BundleName
    study: Study
    images: list[ImageAnswer] = Field(description="in the order of the request's parts")
    timings_ms: Timings


class ServedFinding(Answer):
    """A finding that the bundle knows."""

    name: str
    parent: str | None
    threshold: float = Field(description="probability from which it counts as present")
    score_threshold: float = Field(description="score from which a box is shown")


class Models(Answer):
    """The answer to `GET /v1/models`."""

    weakray: str = Field(description="version of weakray that made the bundle")
    format_version: int
    bundle_sha256: str
    files: dict[str, str] = Field(description="file → its SHA-256, as checked when the bundle was read")
    origin: dict[str, str | None] = Field(description="commit, dataset and its hash")
    findings: list[ServedFinding]
    members: int = Field(description="classifiers of the ensemble")
    maps: str = Field(description="method of the maps")


class ExampleEntry(Answer):
    """A film that the server offers to look at."""

    id: str
    title: str
    truth: bool = Field(description="whether radiologists' boxes are known")


class Examples(Answer):
    """The answer to `GET /v1/examples`; empty where the server was given none."""

    examples: list[ExampleEntry]


class TrueBox(Answer):
    """A radiologist's box."""

    finding: str
    xyxy_px: tuple[float, float, float, float]


class Truth(Answer):
    """The answer to `GET /v1/examples/{id}/truth`."""

    boxes: list[TrueBox]


class Health(Answer):
    """Whether the process lives, or can answer."""

    status: Literal["ok", "stopping"]


class Reloaded(Answer):
    """The answer to `POST /v1/reload`."""

    bundle: BundleName
    changed: bool = Field(description="whether it is another bundle than before")
