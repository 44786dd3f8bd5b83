from __future__ import annotations

from pathlib import Path

import pytest

from weakray.errors import DataError
from weakray.files import read_json, read_yaml, replacing, sha256_file, sha256_json, write_json


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def break_off() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a JSON file, found none"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON, got something else"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(DataError, match="expected YAML, got something else"):
        read_yaml(tmp_path / "a.yaml")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
