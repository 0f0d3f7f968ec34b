"""docs/models.md: its text stands here, its rows are what the tests measured."""

import fcntl
from collections.abc import Mapping
from pathlib import Path

from architectures import ARCHITECTURES
from checks import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

INTRODUCTION = """# Models

This page tells which model architectures maskdpo trains and samples exactly, and which ones it refuses, for readers
who want to know whether their model will work.

maskdpo works with decoder models that transformers loads. The table below is measured: for every architecture
`make test-models` builds a tiny random model (2 to 4 layers of width 32, with sliding windows of 16 tokens, and with
dropout where the architecture has any) and compares what maskdpo computes with transformers' own forward pass in
float64 with eager attention, one answer at a time, unpadded. All this is in float32 on a CPU; a GPU has kernels of its
own. So every run, of whatever model, begins with a check of its own: maskdpo compares its log-probs (the logarithms of
the probabilities of tokens) of some pairs with those of the model's own forward pass, and refuses a model for which
they differ.

## The columns

A pair is a prompt with a better (chosen) and a worse (rejected) answer.

- **layout**: how a pair is laid out for the model. `shared`: prompt, chosen and rejected answer are one row, so that
  the prompt is computed once. `padded`: a row for each answer, for layers that are not plain full attention.
- **sampling**: four samples of each of three prompts of different lengths, drawn in one batch. Each sample is compared
  with the sample drawn without padding and without a cache, and greedy answers with `generate` of transformers.
- **whole**: two steps in which every weight trains. The log-probs of all answer tokens before the first step are
  compared, the loss and the log-probs of both steps, and the log-probs of the folder that is written, read back by
  transformers.
- **lora**: the same comparisons with an adapter on all linear layers, which is written alone and merged.
- **checkpointing**: the two steps of `whole` with `--gradient-checkpointing`.
- **resume**: the run is stopped after its first step and resumed; the weights that it writes have the same bits.
- **two ranks**: the two steps of `whole` in two processes (`--nproc 2`).

In the columns whole and lora `exact` means that no log-prob of a token is off by 1e-4 nats or more before the first
step, which is the rounding of float32. In the columns checkpointing and two ranks, and for what follows the first step,
`exact` means that the losses, summed log-probs, margins (differences of the two answers' rewards) and gradient norms of
the steps agree to one part in a thousand. `refused` means that maskdpo says so in one line before anything is written,
for the reason given in the last column.

## The table

The rows are written by `.venv/bin/python -m pytest tests/models -n 2 --renew`; `make test-models` fails where the page
says something else than what it measures.
"""

COLUMNS = ("architecture", "models of this kind", "layout", *CHECKS, "notes")


def row(name: str, layout: str, cells: Mapping[str, str], notes: str) -> str:
    values = (f"`{name}`", ARCHITECTURES[name].examples, layout, *(cells[check] for check in CHECKS), notes)
    return "| " + " | ".join(values) + " |"


def rows_of(page: str) -> dict[str, str]:
    """The table's lines, by architecture."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def page_of(rows: Mapping[str, str]) -> str:
    """The whole page; architectures in their order."""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([INTRODUCTION, *head, *(rows[name] for name in ARCHITECTURES if name in rows)]) + "\n"


def renew(name: str, line: str) -> None:
    """Write one row; other processes may be writing others."""
    PAGE.touch()
    with PAGE.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = page_of(rows_of(file.read()) | {name: line})
        file.seek(0)
        file.truncate()
        file.write(text)
