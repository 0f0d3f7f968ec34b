"""What it costs to index a large corpus with ``ground`` and to look questions up in it.

The corpus is made up, for no real one of this size can be part of a project: its passages are put together from
sentences of real texts (``--articles``, JSONL with ``title`` and ``text``), two articles in each, with other numbers in
place of theirs, and a number of its own at the end of each. So the frequencies of frequent words, which decide the time
of a look-up, are those of real text, and the vocabulary grows with the passages, as that of real corpora does. The
questions are those of ``--questions`` (prompt records), or else ask for titles of the articles.

Run: taskset -c 0,1 python benchmarks/ground.py --articles articles.jsonl --questions prompts.jsonl
"""

import argparse
import json
import random
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from maskdpo import console
from maskdpo.ground.bm25 import BM25, BM25Options
from maskdpo.ground.corpus import Document
from maskdpo.ground.store import PassageStore, made_once, write_store
from maskdpo.io import read_prompts
from maskdpo.text.passages import split_sentences

LEAST_BYTES, MOST_BYTES = 450, 588
"""Of a passage: as long as those that ``ground`` makes with its defaults."""
NUMBER = re.compile(r"\d+")
ASKED = ("Tell me about {}.", "What is {} known for?", "Why is {} important?", "How did {} begin?")


def made_up(articles: list[tuple[str, list[str]]], passages: int, rng: random.Random) -> Iterator[Document]:
    for number in range(passages):
        (title, first), (_, second) = rng.choice(articles), rng.choice(articles)
        text = ""
        while len(text.encode()) < LEAST_BYTES:
            sentence = rng.choice(first if rng.random() < 0.7 else second)
            other = NUMBER.sub(lambda found: str(rng.randrange(10 ** len(found[0]))), sentence)
            if len((text + other).encode()) < MOST_BYTES:
                text = f"{text} {other}".strip()
            elif text:
                break
            else:
                first = rng.choice(articles)[1]
        yield Document(f"{number}", title, f"{text} ({number})")


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--questions", type=Path, help="prompt records; else titles are asked for")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--cache", type=Path, help="keep the index here, and take it from here the next time")
    options = parser.parse_args()
    rng = random.Random(0)
    rows = [json.loads(line) for line in options.articles.open(encoding="utf-8")]
    articles = [(row["title"], split_sentences(row["text"])) for row in rows]
    if options.questions:
        questions = [prompt.question for prompt in read_prompts(options.questions).values()]
    else:
        questions = [rng.choice(ASKED).format(row["title"]) for row in rng.sample(rows, min(1000, len(rows)))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.cache or Path(temporary)
        measure(folder, articles, questions, options.passages, rng)


def measure(
    folder: Path, articles: list[tuple[str, list[str]]], questions: list[str], passages: int, rng: random.Random
) -> None:
    started = time.perf_counter()
    drawn = sum(1 for _ in made_up(articles, min(passages, 20_000), random.Random(1)))
    making = (time.perf_counter() - started) / drawn * passages
    times, retriever = [time.perf_counter()], BM25(BM25Options())
    store = PassageStore(
        made_once(folder / f"store-{passages}", lambda new: write_store(new, made_up(articles, passages, rng), 100))
    )
    times.append(time.perf_counter())
    index = made_once(folder / f"index-{passages}", lambda new: retriever.build(store, new))
    times.append(time.perf_counter())
    peak = peak_mb()
    retriever.load(store, index)
    retriever.search(questions[:20], 5)  # pages of the index that are not in memory yet are no part of the rate
    times.append(time.perf_counter())
    found = retriever.search(questions, 5)
    seconds = time.perf_counter() - times[-1]
    rows = [
        ("passages", len(store)),
        (
            "words of a passage, on average",
            sum(len(store[i].text.split()) for i in range(0, len(store), 997)) * 997 / len(store),
        ),
        ("reading and cutting, s", times[1] - times[0]),
        ("of it making the corpus up, s, estimated", making),
        ("indexing, s", times[2] - times[1]),
        ("peak of memory up to here, MB", peak),
        ("opening the index, s", times[3] - times[2]),
        ("questions", len(questions)),
        ("of them with passages", sum(map(bool, found))),
        ("questions / s, one process", len(questions) / seconds),
        ("peak of memory, MB", peak_mb()),
        ("on disk, MB", sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // 10**6),
    ]
    console.table("ground: a corpus that is put together from real sentences", ("", ""), rows)


if __name__ == "__main__":
    main()
