"""Small record files to publish, with the records of runs beside them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.pairs import build_pairs
from maskdpo.run_record import meta_file, sha256_of

GOOD, BAD = "Paris lies in France.", "Paris lies in Spain."


class RecordFiles(NamedTuple):
    prompts: Path
    annotations: Path
    pairs: Path

    @property
    def arguments(self) -> list[str]:
        return [str(file) for file in self]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


def prompt(i: int) -> dict[str, Any]:
    return {
        "id": f"q{i}", "prompt": f"Where is Paris? ({i})", "reference": ["Paris is in France.", "It is a city."],
        "topic": f"t{i // 2}", "language": "zh" if i % 5 == 0 else "en", "meta": {"n": i, "deep": [{"a": None}]},
    }  # fmt: skip


def answer(i: int, good: bool, raw: bool) -> dict[str, Any]:
    text = f"{GOOD if good else BAD} That is {i}."
    cut = text.index(" That")
    status = {"label": "no_fact"} if i % 3 else {"label": None, "status": "refused" if i % 2 else "unsure"}
    scores = {"no_hallucination": 0.75 if good else 0.25, "contradictory": 0.25 if good else 0.75}
    verdict = {"label": "no_hallucination" if good else "contradictory", "confidence": 0.75, "scores": scores}
    return {
        "id": f"q{i}-{int(good)}", "prompt_id": f"q{i}", "response": text, "model": "org/model",
        "sampling": {"temperature": 0.8, **({"raw": True} if raw else {"template_options": {"effort": "low"}})},
        "finish_reason": "stop", **({} if raw or i % 2 else {"reasoning": f"It may be {i}."}),
        "sentences": [
            {"start": 0, "end": cut, **(verdict if i % 2 else verdict | {"scores": None})},
            {"start": cut + 1, "end": len(text), **status},
        ],
        "judge": {"name": "llm", "model": "org/judge", "protocol": "single", "protocol_hash": "abc123", "version": "1"},
    }  # fmt: skip


def make_files(folder: Path, *, prompts: int = 20, raw: bool = False, test_size: float = 0.3) -> RecordFiles:
    """Prompts, two answers each, and the pairs that ``build-pairs`` makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = RecordFiles(folder / "prompts.jsonl", folder / "annotations.jsonl", folder / "pairs.jsonl")
    write(files.prompts, [prompt(i) for i in range(prompts)])
    write(files.annotations, [answer(i, good, raw) for i in range(prompts) for good in (True, False)])
    run = {
        "command": "annotate", "options": {"name": "llm"}, "inputs": {"prompts": sha256_of(files.prompts)},
        "command_line": "maskdpo annotate prompts.jsonl --judge llm", "versions": {"maskdpo": "0.1.0"},
        "status": "complete", "counts": {},
    }  # fmt: skip
    meta_file(files.annotations).write_text(json.dumps(run))
    options = PairOptions(test_size=test_size, min_coverage=0.5)
    build_pairs(files.prompts, files.annotations, files.pairs, options)
    return files
