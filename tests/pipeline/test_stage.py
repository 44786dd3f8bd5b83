"""What a stage of the pipeline says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakray.stages import Stage


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, "1", "[ 3] eval.made\n"),
        ("1", "1", "[ 3] eval.made (found)\n"),
        (
            "1",
            "2",
            "[ 3] eval.made (found)\n     eval.made: done anew, for its settings or what it reads had changed\n",
        ),
    ],
)
def test_a_stage_says_whether_it_was_found_or_done_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str | None, after: str, said: str
) -> None:
    done = tmp_path / "done.json"
    if before is not None:
        done.write_text(before)
    stage = Stage("eval.made", done.write_text, after, tmp_path)
    stage.run(3)
    assert capsys.readouterr().out == said
