"""Sentence splitters side by side: speed, Golden Rules, sentence ends of hand-marked answers.

Speed is characters over processor time, which other work on the machine disturbs less than the clock; the
splitters take turns, and the best of three rounds counts.

Run: python benchmarks/splitters.py   (needs spacy, nltk and pysbd)
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.schemas.records import Span
from maskdpo.text.splitters import Splitter, get_splitter
from maskdpo.text.splitters.nltk_splitter import nltk_splitter
from maskdpo.text.splitters.score import score

DATA = Path(__file__).parents[1] / "tests" / "text" / "data"
ANSWERS_IN_A_TEXT = 8  # the marked answers are short; eight make a text as long as a usual answer
Marked = list[tuple[str, str, list[str]]]  # text, language, sentences


@dataclass(frozen=True)
class Other:
    """Somebody else's splitter as a ``Splitter``; what it returns is only trimmed."""

    name: str
    find: Callable[[str, str], list[tuple[int, int]]]

    def split(self, text: str, language: str) -> list[Span]:
        spans = []
        for found, end in self.find(text, language):
            piece = text[found:end]
            if sentence := piece.strip():
                start = found + len(piece) - len(piece.lstrip())
                spans.append(Span(start, start + len(sentence)))
        return spans


def pysbd_alone() -> Splitter:
    pysbd = require("pysbd", install="pysbd", purpose="benchmarks/splitters.py")
    segmenters: dict[str, Any] = {
        language: pysbd.Segmenter(language=language, clean=False, char_span=True) for language in ("en", "zh")
    }
    return Other("pysbd", lambda text, language: [(s.start, s.end) for s in segmenters[language].segment(text)])


def sentencex_alone() -> Splitter:
    sentencex = require("sentencex", install="sentencex", purpose="benchmarks/splitters.py")
    return Other(
        "sentencex alone",
        lambda text, language: [
            (found["start_index"], found["end_index"]) for found in sentencex.get_sentence_boundaries(language, text)
        ],
    )


def golden_rules() -> Marked:
    rules = json.loads((DATA / "golden_rules_en.json").read_text(encoding="utf-8"))["rules"]
    return [(" ".join(sentences), "en", sentences) for sentences in rules]


def answers(file: str) -> Marked:
    rows = [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["language"], row["sentences"]) for row in rows]


def texts_to_time(marked: Marked) -> list[tuple[str, str]]:
    texts = []
    for language in ("en", "zh"):
        own = [text for text, of, _ in marked if of == language]
        groups = [own[i : i + ANSWERS_IN_A_TEXT] for i in range(0, len(own), ANSWERS_IN_A_TEXT)]
        texts += [("\n\n".join(group), language) for group in groups]
    return texts


def seconds(splitter: Splitter, texts: Sequence[tuple[str, str]], copies: int) -> float:
    start = time.process_time()
    for _ in range(copies):
        for text, language in texts:
            splitter.split(text, language)
    return (time.process_time() - start) / copies


def mchars_per_second(splitters: Sequence[Splitter], texts: Sequence[tuple[str, str]]) -> list[float]:
    """The best of three rounds, after one to warm up; a round takes about a second of each splitter."""
    copies = [max(1, round(1 / seconds(splitter, texts, 1))) for splitter in splitters]
    rounds = [[seconds(s, texts, n) for s, n in zip(splitters, copies, strict=True)] for _ in range(3)]
    characters = sum(len(text) for text, _ in texts)
    return [characters / min(times) / 1e6 for times in zip(*rounds, strict=True)]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    rules, marked = golden_rules(), answers("answers.jsonl")
    held_out, today = answers("answers_held_out.jsonl"), answers("answers_today.jsonl")
    today_held_out = answers("answers_today_held_out.jsonl")
    texts = texts_to_time(marked)
    try:
        splitters = [
            get_splitter("markdown"),
            get_splitter("spacy"),
            nltk_splitter([text for text, _, _ in marked]),
            sentencex_alone(),
            pysbd_alone(),
        ]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    speeds = mchars_per_second(splitters, texts)
    size = sum(len(text) for text, _ in texts)
    print(f"{len(texts)} texts, {size} characters; Python {platform.python_version()}, {platform.machine()}\n")
    columns = ["splitter", "Mchar/s", "times pysbd", "Golden Rules", "precision", "recall", "F1", "F1 held out"]
    columns += ["F1 today", "F1 today held out"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for splitter, speed in zip(splitters, speeds, strict=True):
        sets = (rules, marked, held_out, today, today_held_out)
        golden, ends, held, new, new_held = (score(splitter, texts) for texts in sets)
        print(
            f"| {splitter.name} | {speed:.3f} | {speed / speeds[-1]:.1f} | {golden.exact}/{golden.texts} "
            f"| {ends.precision:.3f} | {ends.recall:.3f} | {ends.f1:.3f} | {held.f1:.3f} "
            f"| {new.f1:.3f} | {new_held.f1:.3f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
