"""Bad input to ``maskdpo train``: one line that says what is wrong, exit code 2, and nothing is written.

Files that are no pairs files, and options that nobody knows, are in tests/test_cli_bad_input.py.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import exit_code
from test_run import cache_folder, pairs_file
from train_helpers import NO_ASSISTANT
from transformers import AutoTokenizer, CTRLTokenizer

from maskdpo.cli import main
from maskdpo.models import load_model
from maskdpo.train.run import launch

__all__ = ["cache_folder", "pairs_file"]  # fixtures

Fails = Callable[..., str]


@pytest.fixture
def fails(
    tmp_path: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fails:
    """Run ``train`` on a model folder: the one line of its error."""

    def call(model: Path | str, *options: str, pairs: Path = pairs_file) -> str:
        line = ["maskdpo", "train", str(pairs), "--model", str(model), "--out", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", line)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert not (tmp_path / "out").exists()
        (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
        return error.removeprefix("error: ")

    return call


@pytest.fixture
def model(tiny_model: str, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_slow_tokenizer(fails: Fails, model: Path) -> None:
    (model / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1}))
    (model / "merges.txt").write_text("#version: 0.2\n")
    CTRLTokenizer(str(model / "vocab.json"), str(model / "merges.txt")).save_pretrained(model)
    (model / "tokenizer.json").unlink()
    assert not AutoTokenizer.from_pretrained(model).is_fast
    assert "exact masks need a fast tokenizer" in fails(model)


def test_a_template_that_leaves_out_the_answer(fails: Fails, model: Path) -> None:
    (model / "chat_template.jinja").write_text(NO_ASSISTANT)
    assert fails(model) == "no pair can be trained on (5: the chat template does not keep the response text)"


def test_no_template(fails: Fails, model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert "the tokenizer has no chat template, which chat messages need" in fails(model)


def test_a_template_that_is_broken(fails: Fails, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert fails(model).startswith("no pair can be trained on (5: the chat template refuses the conversation")


def test_prompts_beyond_the_limit(fails: Fails, tiny_model: str) -> None:
    expected = "no pair can be trained on (5: the prompt alone reaches max_length)"
    assert fails(tiny_model, "--max-length", "4") == expected
    assert fails(tiny_model, "--max-length", "4", "--dry-run") == expected


def test_a_tokenizer_of_another_model(fails: Fails, model: Path) -> None:
    small = load_model(str(model), dtype=torch.float32, device="cpu")
    small.resize_token_embeddings(50)
    small.save_pretrained(model)
    assert fails(model).endswith("the model has 50 embeddings: they do not match")


def test_labels_that_nobody_knows(fails: Fails, tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    rows[1]["chosen_sentences"][0]["label"] = "lie"
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = fails(tiny_model, pairs=tmp_path / "pairs.jsonl")
    assert "pairs.jsonl:2: chosen_sentences.0.label: " in error
    assert "no_hallucination" in error


def test_no_pairs_in_either_file(fails: Fails, tiny_model: str, tmp_path: Path) -> None:
    empty = tmp_path / "none.jsonl"
    empty.write_text("")
    assert fails(tiny_model, pairs=empty) == fails(tiny_model, "--eval", str(empty))
    assert "none.jsonl" in fails(tiny_model, "--eval", str(empty))


def test_options_that_do_not_go_together(fails: Fails, tiny_model: str) -> None:
    assert fails(tiny_model, "--keep-best") == "--keep-best needs held-out pairs: --eval PAIRS"
    assert fails(tiny_model, "--lora-alpha", "8") == "--lora-alpha goes with --lora-r"
    assert fails(tiny_model, "--lora-r", "4", "--lora-targets", "nothing").startswith("--lora-targets nothing: ")


@pytest.mark.parametrize("more", ["--nproc 2", "--nproc 2 --dry-run"])
def test_what_several_processes_cannot_do_is_refused_before_they_start(
    more: str, fails: Fails, tiny_model: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr(launch, "elastic_launch", never)
    four_bits = fails(tiny_model, "--lora-r", "4", "--load-in-4bit", *more.split())
    assert four_bits.startswith("--load-in-4bit works in one process only; ")
    answers = fails(tiny_model, "--eval", str(pairs_file), "--show-answers", "1", *more.split())
    assert answers == "--show-answers works in one process only"
    assert fails(tiny_model, "--keep-best", *more.split()) == "--keep-best needs held-out pairs: --eval PAIRS"


def test_a_folder_that_holds_no_run_stops_a_dry_run_too(
    tiny_model: str, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert exit_code("train", pairs_file, "--model", tiny_model, "--out", tmp_path / "out", "--dry-run") == 2
    assert "the folder exists and holds no maskdpo run; name another --out" in " ".join(capsys.readouterr().err.split())
