"""How long build-pairs takes, and how much memory: synthetic answers, each run in a process of its own.

A sentence is 12 to 24 words of a small vocabulary with a random label; one in fifty was not judged. Answers are written
in a shuffled order, so that the texts of a pair lie far apart in the file. Peak memory is what the kernel says of the
finished process.

Run: python benchmarks/pairs.py   (--answers 200000 --sentences 4; writes about 260 MB to a temporary folder)
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VOCABULARY = (
    "the of and in to was for on as with by from his it an were which first new city river born died known became war "
    "university capital north film album member between century team school company game state island species"
)
WORDS = VOCABULARY.split()
LABELS = ("no_hallucination", "contradictory", "unverifiable", "no_fact")
RUNS = {
    "best-worst": [],
    "top-bottom": ["--strategy", "top-bottom"],
    "best-random": ["--strategy", "best-random"],
    "all, 4 a prompt": ["--strategy", "all", "--max-per-prompt", "4"],
    "all": ["--strategy", "all"],
    "difference, by confidence": ["--score", "difference", "--confidence-weighted"],
}


def answer(rng: random.Random, prompt: int, number: int, sentences: int) -> dict[str, Any]:
    text, spans = "", []
    for _ in range(sentences):
        sentence = " ".join(rng.choices(WORDS, k=rng.randint(12, 24))).capitalize() + "."
        judged = rng.random() >= 0.02
        verdict = (
            {"label": rng.choice(LABELS), "confidence": round(rng.random(), 3)} if judged else {"status": "refused"}
        )
        spans.append({"start": len(text), "end": len(text) + len(sentence), "evidence": sentence[:60], **verdict})
        text += sentence + " "
    return {
        "id": f"q{prompt}#{number}",
        "prompt_id": f"q{prompt}",
        "response": text,
        "model": "synthetic",
        "sampling": {"temperature": 1.0, "seed": number},
        "finish_reason": "stop",
        "sentences": spans,
    }


def write_inputs(folder: Path, answers: int, each: int, sentences: int) -> tuple[Path, Path]:
    """Prompts with a reference of about 2,000 characters, four to a topic; answers in a random order."""
    rng = random.Random(0)
    prompts, annotations = folder / "prompts.jsonl", folder / "annotations.jsonl"
    reference = " ".join(rng.choices(WORDS, k=350))
    with prompts.open("w") as file:
        for i in range(-(-answers // each)):
            row = {"id": f"q{i}", "prompt": f"What is known of {i}?", "topic": f"t{i // 4}", "reference": reference}
            file.write(json.dumps(row) + "\n")
    places = list(range(answers))
    rng.shuffle(places)
    with annotations.open("w") as file:
        for place in places:
            file.write(json.dumps(answer(rng, place // each, place % each, sentences)) + "\n")
    return prompts, annotations


def run(prompts: Path, annotations: Path, options: list[str]) -> tuple[int, float, float]:
    """Pairs, seconds, and peak memory in MB of one run, start of the interpreter included."""
    out = annotations.with_name("pairs.jsonl")
    command = [sys.executable, "-m", "maskdpo", "build-pairs", str(prompts), str(annotations), "--out", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"build-pairs failed: {' '.join(options)}")
    counts = json.loads(out.with_name("pairs.jsonl.meta.json").read_text())["counts"]["pairs"]
    return counts["train"] + counts["test"], seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--answers", type=int, default=200_000)
    parser.add_argument("--each", type=int, default=8, help="answers a prompt")
    parser.add_argument("--sentences", type=int, default=4, help="sentences an answer")
    parser.add_argument("--only", choices=RUNS, help="one run instead of all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), given.answers, given.each, given.sentences)
        megabytes = inputs[1].stat().st_size / 1e6
        load = os.getloadavg()[0]
        print(f"{megabytes:.0f} MB of annotations, {os.cpu_count()} cores, load {load:.1f} before the first run\n")
        print("| run | answers | sentences | pairs | s | peak MB |\n|---|---|---|---|---|---|")
        for name, options in RUNS.items():
            if given.only in (None, name):
                pairs, seconds, peak = run(*inputs, options)
                sentences = given.answers * given.sentences
                print(
                    f"| {name} | {given.answers:,} | {sentences:,} | {pairs:,} | {seconds:.1f} | {peak:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
