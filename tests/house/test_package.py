"""What is shipped: the wheel's names, one cv2, a lock without addresses, licences."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"weakray", "ingest", "classify", "camgen", "detect", "eval", "serve", "configs"}


def test_wheel_holds_exactly_the_packages(tmp_path: Path) -> None:
    # setuptools leaves build/ and egg-info behind, so it builds in a copy of the tracked sources
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(tmp_path / "source"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == TOP_LEVEL
    assert "configs/demo.yaml" in names
    assert "ingest/taxonomies/chexpert.yaml" in names
    assert any(name.endswith(".j2") for name in names)


def test_one_cv2_distribution() -> None:
    owners = {d.name for d in metadata.distributions() if (d.name or "").lower().startswith("opencv")}
    assert owners == {"opencv-python-headless"}


def test_lock_is_what_is_installed_and_names_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert sum(name.startswith("opencv") for name in pins) == 1
    for name in ("torch", "timm", "ultralytics", "numpy", "onnxruntime", "pandas"):
        assert metadata.version(name).split("+")[0] == pins[name]


def test_torch_is_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "AGPL-3.0-or-later"
    core = {requirement.split(">")[0] for requirement in project["dependencies"]}
    serve = {requirement.split(">")[0] for requirement in project["optional-dependencies"]["serve"]}
    assert not {"torch", "pandas", "pyarrow", "ultralytics", "timm"} & (core | serve)
    assert any(r.startswith("torch>") for r in project["optional-dependencies"]["train"])
