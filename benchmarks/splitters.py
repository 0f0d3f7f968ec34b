"""Sentence splitters side by side: speed, Golden Rules, sentence ends of hand-marked answers.

Run: python benchmarks/splitters.py [--copies 20]   (needs spacy, nltk and pysbd)
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

from maskdpo.annotate.splitters import Splitter, get_splitter
from maskdpo.annotate.splitters.score import score
from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.schemas.records import Span

DATA = Path(__file__).parents[1] / "tests" / "annotate" / "data"
ANSWERS_IN_A_TEXT = 8  # the marked answers are short; eight make a text as long as a usual answer
Marked = list[tuple[str, str, list[str]]]  # text, language, sentences


@dataclass(frozen=True)
class Other:
    """Somebody else's splitter as a ``Splitter``; what it returns is only trimmed."""

    name: str
    find: Callable[[str, str], list[tuple[int, int]]]

    def split(self, text: str, language: str) -> list[Span]:
        spans = []
        for start, end in self.find(text, language):
            piece = text[start:end]
            if sentence := piece.strip():
                start += len(piece) - len(piece.lstrip())
                spans.append(Span(start, start + len(sentence)))
        return spans


def pysbd_alone() -> Splitter:
    pysbd = require("pysbd", install="pysbd", purpose="benchmarks/splitters.py")
    segmenters: dict[str, Any] = {
        language: pysbd.Segmenter(language=language, clean=False, char_span=True) for language in ("en", "zh")
    }
    return Other(
        "pysbd", lambda text, language: [(s.start, s.end) for s in segmenters[language].segment(text)]
    )


def sentencex_alone() -> Splitter:
    sentencex = require("sentencex", install="sentencex", purpose="benchmarks/splitters.py")
    return Other(
        "sentencex alone",
        lambda text, language: [
            (found["start_index"], found["end_index"])
            for found in sentencex.get_sentence_boundaries(language, text)
        ],
    )


def golden_rules() -> Marked:
    rules = json.loads((DATA / "golden_rules_en.json").read_text(encoding="utf-8"))["rules"]
    return [(" ".join(sentences), "en", sentences) for sentences in rules]


def answers() -> Marked:
    rows = [json.loads(line) for line in (DATA / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["language"], row["sentences"]) for row in rows]


def texts_to_time(marked: Marked) -> list[tuple[str, str]]:
    texts = []
    for language in ("en", "zh"):
        own = [text for text, of, _ in marked if of == language]
        texts += [
            ("\n\n".join(own[i : i + ANSWERS_IN_A_TEXT]), language)
            for i in range(0, len(own), ANSWERS_IN_A_TEXT)
        ]
    return texts


def mchars_per_second(splitter: Splitter, texts: Sequence[tuple[str, str]], copies: int) -> float:
    """The best of three rounds, after one to warm up. A slow splitter gets fewer copies: about a second a round."""
    characters = sum(len(text) for text, _ in texts)
    start = time.perf_counter()
    for text, language in texts:
        splitter.split(text, language)
    copies = max(1, min(copies, round(1 / (time.perf_counter() - start))))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(copies):
            for text, language in texts:
                splitter.split(text, language)
        best = min(best, time.perf_counter() - start)
    return characters * copies / best / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--copies", type=int, default=20, help="how many times the texts are split in a round"
    )
    copies = parser.parse_args().copies
    rules, marked = golden_rules(), answers()
    texts = texts_to_time(marked)
    try:
        splitters = [
            get_splitter("markdown"),
            get_splitter("spacy"),
            get_splitter("nltk", [text for text, _, _ in marked]),
            sentencex_alone(),
            pysbd_alone(),
        ]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    speeds = [mchars_per_second(splitter, texts, copies) for splitter in splitters]
    size = sum(len(text) for text, _ in texts)
    print(f"{len(texts)} texts, {size} characters; Python {platform.python_version()}, {platform.machine()}")
    print("\n| splitter | Mchar/s | times pysbd | Golden Rules | precision | recall | F1 |")
    print("|---|---|---|---|---|---|---|")
    for splitter, speed in zip(splitters, speeds, strict=True):
        golden, ends = score(splitter, rules), score(splitter, marked)
        print(
            f"| {splitter.name} | {speed:.3f} | {speed / speeds[-1]:.1f} | {golden.exact}/{golden.texts} "
            f"| {ends.precision:.3f} | {ends.recall:.3f} | {ends.f1:.3f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
