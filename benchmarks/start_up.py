"""How long a training takes to start at size, and how much memory: pairs are encoded the first time, then found.

A file of synthetic pairs is written out of sentences of the pages in docs/: prompts of about 90 tokens, answers of
about 375, a random label for every sentence. Then ``read_pairs`` runs twice, each time in a process of its own, as
``maskdpo train`` calls it, and looks at the pairs of 1,000 steps. Memory is what the kernel says of the process at its
end: RssAnon is its own, RssFile are pages of mapped files, which all processes share and the kernel may drop. Of the
processes that encode a large file, RssAnon of all together is the largest of some looks a second.

Run: python benchmarks/start_up.py --pairs 20000      (400000: 2.3 GB of pairs, 3 GB of cache, and some minutes)
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from maskdpo import console
from maskdpo.models import load_tokenizer, resolve_model
from maskdpo.train.config import TrainConfig

LABELS = ("no_hallucination", "contradictory", "unverifiable", "no_fact")
PROMPT, ANSWER = 90, 365
STEPS = 1000


def sentences(model: str) -> list[tuple[str, int]]:
    """Sentences of the project's pages, with their tokens."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
    found = [one for one in re.split(r"(?<=[.!?]) ", " ".join(lines)) if 40 < len(one) < 220]
    ids = load_tokenizer(model)(found, add_special_tokens=False)["input_ids"]
    return [(one, len(tokens) + 1) for one, tokens in zip(found, ids, strict=True)]


def write_pairs(file: Path, number: int, model: str) -> None:
    known, rng = sentences(model), random.Random(0)

    def text_of(tokens: int) -> tuple[str, list[dict[str, Any]]]:
        text, spans = "", []
        while tokens > 0:
            sentence, count = rng.choice(known)
            spans.append({"start": len(text), "end": len(text) + len(sentence), "label": rng.choice(LABELS)})
            text, tokens = text + sentence + " ", tokens - count
        return text, spans

    with file.open("w", encoding="utf-8") as out:
        for i in range(number):
            row: dict[str, Any] = {"id": f"pair-{i}", "prompt_id": f"q{i}", "topic": f"t{i // 4}"}
            row["prompt"] = [{"role": "user", "content": text_of(PROMPT)[0]}]
            for side in ("chosen", "rejected"):
                text, spans = text_of(ANSWER)
                row |= {side: [{"role": "assistant", "content": text}], f"{side}_sentences": spans}
            out.write(json.dumps(row) + "\n")


def memory_gb(process: str) -> dict[str, float]:
    """As the kernel says; empty of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) / 1e6 for name in ("RssAnon", "RssFile", "VmHWM") if name in found}


@contextmanager
def looking_at_children() -> Iterator[list[float]]:
    """GB of RssAnon of all child processes together, look by look."""
    seen, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.3):
            with suppress(OSError):  # a thread may have ended meanwhile
                found = [file.read_text().split() for file in Path("/proc/self/task").glob("*/children")]
                seen.append(sum(memory_gb(child).get("RssAnon", 0.0) for child in chain.from_iterable(found)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def start(file: Path, model: str) -> dict[str, float]:
    """What one start takes, in this process."""
    from maskdpo.train.data.read import read_pairs
    from maskdpo.train.run.loop import batches, total_steps

    config = TrainConfig(model=model)
    began = time.perf_counter()
    with looking_at_children() as seen:
        pairs = read_pairs(file, config, load_tokenizer(model))
    ready = time.perf_counter() - began
    steps = min(STEPS, total_steps(len(pairs), config))
    for batch in batches(pairs, config, 0, steps):
        assert all(pair.tokens for pair in batch)
    drawn = time.perf_counter() - began - ready
    memory = memory_gb("self") | {"encoders": max(seen)}
    tokens = int(pairs.lengths.sum())
    return {"seconds": ready, "tokens": tokens, "pairs": len(pairs), "ms_per_step": 1e3 * drawn / steps, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(start(options.child, options.model)))
        return
    resolve_model(options.model)  # it may have to be converted
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write_pairs(file, options.pairs, options.model)
        cache = Path(folder) / "cache"
        cache.mkdir()
        tokenizer = Path(folder) / "model"
        load_tokenizer(options.model).save_pretrained(tokenizer)
        (tokenizer / "config.json").write_text('{"model_type": "llama"}')
        command = [sys.executable, __file__, "--child", str(file), "--model", str(tokenizer)]
        for name in ("first", "second"):
            done = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, env=os.environ | {"MASKDPO_CACHE": str(cache)}
            )
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                (
                    name,
                    found["pairs"],
                    f"{found['tokens'] / found['pairs']:.0f}",
                    f"{found['seconds'] / 60:.2f}",
                    f"{found['tokens'] / found['seconds']:,.0f}",
                    f"{found['RssAnon']:.2f}",
                    f"{found['RssFile']:.2f}",
                    f"{found['VmHWM']:.2f}",
                    f"{found['encoders']:.2f}",
                    f"{found['ms_per_step']:.1f}",
                )
            )
        size = file.stat().st_size / 1e9
    names = "start", "pairs", "tokens/pair", "minutes", "tokens/s", "RssAnon GB", "RssFile GB", "peak Rss GB"
    console.table(
        f"{size:.2f} GB of pairs, {os.cpu_count()} cores, load {load:.1f} before",
        (*names, "encoders GB", "ms/step"),
        rows,
    )


if __name__ == "__main__":
    main()
