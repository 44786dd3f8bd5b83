"""How fast reports become labels, and how well, on one core.

`python -m bench.reports [--quick]` reads made reports of the phantom's films, and the held-out halves of the labelled
texts. Aims: 300 reports a second a core; macro F1 0.93 on texts that no rule was made on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from bench.printing import Row, answer, at_least
from ingest.phantom.reports import write_report
from ingest.phantom.taxonomy import FINDINGS, PARENTS, leaves_first
from ingest.reports.findings import consistent
from ingest.reports.labeller import read_report
from ingest.reports.lexicon import LANGUAGES, Language
from ingest.reports.scores import agreement

LABELLED = Path(__file__).parents[1] / "tests" / "ingest" / "reports" / "labelled"


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer reports")
    count = 300 if parser.parse_args().quick else 3000
    with contextlib.redirect_stdout(sys.stderr):
        rows = [row for language in LANGUAGES for row in (_speed(language, count), *_agreement(language))]
    answer("reports", rows)


def _speed(language: Language, count: int) -> Row:
    """Reports a second; the rules are read before the clock starts."""
    rng = np.random.default_rng(5)
    texts = [_made(rng, language) for _ in range(count)]
    read_report(texts[0], language)
    rates = []
    for turn in range(3):
        part = texts[turn::3]
        start = time.process_time()
        for text in part:
            read_report(text, language)
        rates.append(len(part) / (time.process_time() - start))
    rates.sort()
    return at_least(f"speed/{language}", rates[1], 300.0, "reports/s/core", (rates[0], rates[2]))


def _made(rng: np.random.Generator, language: Language) -> str:
    labels = rng.choice(np.array([1, 0, -1, np.nan], np.float32), len(FINDINGS), p=[0.25, 0.4, 0.1, 0.25])
    for name in leaves_first():
        if name in PARENTS and labels[FINDINGS.index(name)] == 1:
            labels[FINDINGS.index(PARENTS[name])] = 1
    boxes, classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return write_report(labels, boxes, classes, 64, rng, language)


def _agreement(language: Language) -> list[Row]:
    """Macro F1 on the held-out half, and on its patterns of the source hospital."""
    lines = (LABELLED / f"{language}.held_out.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    rows = []
    for case, kept in (("held-out", entries), ("facts-11", [e for e in entries if e["phenomenon"] == "facts11"])):
        given = [consistent(entry["labels"]) for entry in kept]
        score = agreement(given, [read_report(entry["text"], language).labels for entry in kept])
        rows.append(at_least(f"macro-f1/{language}/{case}", score.macro_f1, 0.93, "F1"))
    return rows


if __name__ == "__main__":
    main()
