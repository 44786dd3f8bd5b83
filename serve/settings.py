"""What a server is told: where it listens, whom it answers, and how much it takes before it says no."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from weakray.config import StrictModel
from weakray.errors import ConfigError

TOKEN_VARIABLE = "WEAKRAY_TOKEN"  # noqa: S105 - the name of a variable, not a token
_LEAST_TOKEN_CHARS = 16


class LimitConfig(StrictModel):
    """How much one request may bring; all of it is checked before an image is decoded."""

    images: int = Field(8, ge=1, description="most images of one request: a study has 1 to 8")
    image_bytes: int = Field(64 * 2**20, ge=1, description="most bytes of one image as sent, and inflated")
    request_bytes: int = Field(128 * 2**20, ge=1, description="most bytes of a request's body")
    side_px: int = Field(20_000, ge=1, description="longest side of an image")
    pixels: int = Field(40_000_000, ge=1, description="most pixels of an image")
    frames: int = Field(100, ge=1, description="most frames of a DICOM file; one is read")


class LoadConfig(StrictModel):
    """How many requests are held at once, and for how long."""

    requests: int = Field(32, ge=1, description="requests held at once, read or waiting; the next is answered 429")
    held_bytes: int = Field(256 * 2**20, ge=1, description="bytes of bodies held at once; more is answered 429")
    batch_images: int = Field(8, ge=1, description="most images of one pass through the graphs")
    decode_threads: int = Field(2, ge=1, description="images decoded at once: what bounds the memory of decoding")
    connections: int = Field(512, ge=1, description="connections held at once; further ones are closed")
    header_timeout_s: float = Field(10, gt=0, description="time for a request's head to arrive")
    body_timeout_s: float = Field(30, gt=0, description="time for a request's body to arrive")
    answer_timeout_s: float = Field(60, gt=0, description="time from the whole body to the answer; then 503")
    write_timeout_s: float = Field(30, gt=0, description="time without progress after which a reader is given up")
    idle_timeout_s: int = Field(20, ge=1, description="time a connection may lie idle between requests")
    shutdown_timeout_s: int = Field(120, ge=1, description="time to finish what was taken when told to stop")


class ServeConfig(StrictModel):
    """Settings of `weakray serve`."""

    positional_folder: ClassVar[str] = "bundle"

    bundle: Path = Field(description="bundle folder, or a link to one; read again on SIGHUP")
    host: str = Field("127.0.0.1", description="address to listen on; one that is not loopback needs a token")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token_file: Path | None = Field(
        None, description=f"file of the bearer token; else the variable {TOKEN_VARIABLE}; else none is asked for"
    )
    examples: Path | None = Field(None, description="folder of example films for the page; see `serve.examples`")
    threads: int | None = Field(None, ge=1, description="threads of one pass; all cores when not given")
    engine: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="what runs the detector; auto: OpenVINO where the bundle ships it, else onnxruntime"
    )
    limits: LimitConfig = LimitConfig()
    load: LoadConfig = LoadConfig()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(config: ServeConfig) -> str | None:
    """The bearer token, from the file or the environment; None where no token is asked for.

    Raises:
        ConfigError: if the token cannot be read, is too short to be one, or is missing where it must be.
    """
    if config.token_file is not None:
        try:
            token = config.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"token_file: expected a readable file with a token, got {error}") from None
        origin = f"token_file: {config.token_file}"
    else:
        token, origin = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
    if not token and config.token_file is None:
        if not is_loopback(config.host):
            raise ConfigError(
                f"host: {config.host} can be reached from other machines, and there is no token; name a token_file, "
                f"set {TOKEN_VARIABLE}, or listen on 127.0.0.1"
            )
        return None
    if len(token) < _LEAST_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{origin}: expected a token of at least {_LEAST_TOKEN_CHARS} printable ASCII characters without spaces, "
            f"got {len(token)} characters; make one with: openssl rand -hex 32"
        )
    return token
