"""The whole ``annotate`` on one core: reading, splitting, judging, writing with fsync, and putting into order.

The input is made up here: invented people, answers of a few hundred characters in prose, lists and headings. The
``instant`` judge has its verdicts ready, so that its row is what maskdpo itself costs; it gives answers back out of
order, as a server does. ``lexical`` is the built-in judge. Each row is a process of its own, bound to one core, so
that its peak of memory is its own. ``resumed``: half of the answers are there already. ``failed again``: all are
there, one sentence in fifty has no verdict, and these are asked again. Where other work disturbs the clock, the
processor time says more (it leaves out only the waiting for the disk).

Run: python benchmarks/annotate_pipeline.py --answers 20000   (200000 for the figures of a long run)
"""

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from maskdpo.annotate.judge import Judge, Task, Verdict
from maskdpo.annotate.judges.lexical import LexicalJudge
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.stats import AnnotateStats
from maskdpo.io import write_records
from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Status
from maskdpo.text.splitters import get_splitter

ANSWERS_A_PROMPT = 8
WINDOW = 64
CASES = {  # name: output file
    "instant": "instant.jsonl",
    "instant, resumed": "instant.jsonl",
    "instant, failed again": "failed.jsonl",
    "lexical": "lexical.jsonl",
}
FIRST = ("Ada", "Boris", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Igor", "Lena", "Nils", "Olga", "Tara")
LAST = ("Abel", "Brandt", "Castro", "Dahl", "Eriksen", "Fontaine", "Gruber", "Horvat", "Ivanov", "Jensen", "Moreau")
TOWNS = ("Lisbon", "Ghent", "Turin", "Bergen", "Zagreb", "Malaga", "Uppsala", "Leipzig", "Bruges", "Nantes", "Gdansk")
FIELDS = ("botany", "geology", "chemistry", "optics", "medicine", "linguistics", "astronomy", "mathematics", "history")


class Instant:
    """Says what it has ready, whatever it is asked, and gives windows of answers back, the last first."""

    def __init__(self, *, failing: bool) -> None:
        self.info = JudgeInfo(name="instant", version="1")
        verdicts = [
            Verdict(Label.NO_HALLUCINATION, confidence=0.93, evidence="The reference says so."),
            Verdict(Label.CONTRADICTORY, confidence=0.71, reason="the reference has another year"),
            Verdict(Label.UNVERIFIABLE, confidence=0.5),
            Verdict(Label.NO_FACT),
        ]
        failure = Verdict(None, Status.API_ERROR, reason="the server hung up")
        self._verdicts = cycle([*islice(cycle(verdicts), 49), failure] if failing else verdicts)

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        stream = iter(tasks)
        while window := list(islice(stream, WINDOW)):
            for task in reversed(window):
                yield task, list(islice(self._verdicts, len(task.spans)))


def facts(rng: random.Random) -> dict[str, str]:
    born = rng.randrange(1700, 1950)
    return {
        "name": f"{rng.choice(FIRST)} {rng.choice(LAST)}",
        "born": str(born),
        "died": str(born + rng.randrange(40, 90)),
        "town": rng.choice(TOWNS),
        "moved": rng.choice(TOWNS),
        "field": rng.choice(FIELDS),
        "prize": str(born + rng.randrange(30, 60)),
        "books": str(rng.randrange(2, 30)),
    }


REFERENCE = (
    "{name} ({born}-{died}) was a scholar of {field}. {name} was born in {town} in {born} and moved to {moved} at "
    "the age of twenty. In {prize} the academy of {moved} gave {name} its medal. {name} wrote {books} books."
)
ANSWERS = (
    "{name} was born in {town} in {born}. The family moved to {moved} soon after, e.g. for the sake of Dr. Weber's "
    "school. {name} is remembered for work in {field}, which began in {prize} and led to {books} books.\n\nToday a "
    "street in {moved} bears the name.",
    "Here is what is known of {name}:\n\n- **Born**: {born}, in {town}\n- **Field**: {field}\n- **Books**: {books}, "
    "most of them printed in {moved}\n\nThe academy gave its medal to {name} in {prize}.",
    "# {name}\n\n{name} ({born}-{died}) was a scholar of {field}. At the age of twenty {name} left {town} for {moved}! "
    "Was it the right choice? The {books} books that followed say so.",
    "1. {name} was born in {born}.\n2. The studies of {field} took place in {moved}.\n3. {name} died in {died} in "
    "{town}.\n\nI hope that this helps; ask me if you want to know more about {field}.",
)


def responses(people: list[dict[str, str]], answers: int, rng: random.Random) -> Iterator[Response]:
    for i in range(answers):
        prompt, sample = divmod(i, ANSWERS_A_PROMPT)
        claimed = people[prompt] | {"prize": str(rng.randrange(1700, 1999)), "moved": rng.choice(TOWNS)}
        yield Response(
            id=f"q{prompt}-{sample}",
            prompt_id=f"q{prompt}",
            response=rng.choice(ANSWERS).format(**claimed),
            model="invented",
            sampling={"temperature": 1.0, "top_p": 1.0, "max_tokens": 256, "raw": False},
            finish_reason="stop",
        )


def write_input(folder: Path, answers: int) -> None:
    rng = random.Random(0)
    people = [facts(rng) for _ in range(-(-answers // ANSWERS_A_PROMPT))]
    prompts = (
        Prompt(id=f"q{i}", prompt=f"Who was {person['name']}?", reference=REFERENCE.format(**person))
        for i, person in enumerate(people)
    )
    write_records(folder / "prompts.jsonl", prompts)
    write_records(folder / "responses.jsonl", responses(people, answers, rng))


def annotate_in(folder: Path, case: str, *, failing: bool = False) -> AnnotateStats:
    judge: Judge = LexicalJudge() if case == "lexical" else Instant(failing=failing)
    files = (folder / "prompts.jsonl", folder / "responses.jsonl", folder / CASES[case])
    return annotate(*files, judge, get_splitter("markdown"), retry_failed="again" in case)


def prepare(folder: Path, case: str) -> None:
    """What an earlier run has left."""
    if case == "instant, resumed":
        out = folder / CASES[case]
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(lines[: len(lines) // 2]))
    elif case == "instant, failed again":
        annotate_in(folder, case, failing=True)


def run_case(folder: Path, case: str) -> None:
    """One row of the table, in this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started, cpu_started = time.perf_counter(), time.process_time()
    stats = annotate_in(folder, case)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    status = Path("/proc/self/status").read_text()  # not getrusage, which begins with the peak of the parent
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    print(
        f"| {case} | {stats.run_responses:,} | {stats.run_sentences:,} | {seconds:.1f} | {cpu_seconds:.1f} "
        f"| {stats.run_sentences / seconds:,.0f} | {stats.run_sentences / cpu_seconds:,.0f} | {peak:.0f} |",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--case", choices=CASES, action="append", help="only this row; repeat it for more")
    parser.add_argument("--step", choices=(prepare.__name__, run_case.__name__), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        (prepare if options.step == prepare.__name__ else run_case)(options.folder, options.case[0])
        return 0
    with tempfile.TemporaryDirectory() as name:
        write_input(Path(name), options.answers)
        size = (Path(name) / "responses.jsonl").stat().st_size
        print(f"{options.answers:,} answers, {size / 1e6:.0f} MB; Python {platform.python_version()}, one core\n")
        print("| judge | answers | sentences | s | CPU s | sentences/s | sentences/CPU s | peak MB |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for case in options.case or CASES:
            for step in (prepare, run_case):
                command = [sys.executable, __file__, "--step", step.__name__, "--case", case, "--folder", name]
                subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
