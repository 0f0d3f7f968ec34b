"""Judged answers about towns, the page of a review over them as a real process, and its files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdpo.io import read_records, write_records
from maskdpo.schemas import Annotation, Decision, JudgeInfo, Kind, Label, Prompt, Sentence

RIGHT, WRONG, OPEN, NONE = Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_FACT
LABELS = (RIGHT, WRONG, OPEN, NONE)
JUDGE = JudgeInfo(name="llm", model="small")
DEADLINE_S = 30


def annotation(number: int, parts: Sequence[tuple[str, Label | None, float | None]], **more: Any) -> Annotation:
    """An answer of sentences with one space between them: text, the label of the judge, its confidence."""
    sentences, at = [], 0
    for text, label, confidence in parts:
        kind = Kind.HEADING if text.startswith("#") else Kind.PROSE
        verdict = {"label": label, "confidence": confidence, "kind": kind}
        verdict |= {} if label else {"status": "api_error"}
        verdict |= {"evidence": f"town number {number}", "reason": "as it says"} if label is WRONG else {}
        sentences.append(Sentence.model_validate({"start": at, "end": at + len(text), **verdict}))
        at += len(text) + 1
    fields = {"id": f"a{number}", "prompt_id": f"p{number}", "judge": JUDGE}
    response = " ".join(text for text, _, _ in parts)
    return Annotation.model_validate(fields | {"response": response, "sentences": sentences} | more)


def towns(answers: int, sentences: int = 5) -> tuple[list[Prompt], list[Annotation]]:
    """Answers with a heading and sentences whose labels and confidences differ; two answers share a topic."""
    prompts, annotations = [], []
    for n in range(answers):
        reference = [f"About the town.\nThis is town number {n}, and it has a river.", "Its mayor is Ms Moss."]
        prompts.append(Prompt(id=f"p{n}", prompt=f"What is town {n}?", reference=reference, topic=f"t{n // 2}"))
        said = [
            (
                f"Sentence {k} says that town {n} has {k} rivers.",
                LABELS[(n + k) % 4],
                0.5 + 0.01 * ((7 * n + 3 * k) % 50),
            )
            for k in range(sentences)
        ]
        annotations.append(annotation(n, [("# Town", NONE, None), *said]))
    return prompts, annotations


def write_world(folder: Path, answers: int = 12, sentences: int = 5) -> list[str]:
    """Write the inputs; the first words of a command on them."""
    prompts, annotations = towns(answers, sentences)
    write_records(folder / "prompts.jsonl", prompts)
    write_records(folder / "annotations.jsonl", annotations)
    return words(folder)


def words(folder: Path) -> list[str]:
    return [str(folder / "annotations.jsonl"), "--prompts", str(folder / "prompts.jsonl")]


def decisions(file: Path) -> list[Decision]:
    return list(read_records(file, Decision)) if file.exists() else []


@dataclass
class Serving:
    """A running ``maskdpo review``."""

    process: subprocess.Popen[str]
    url: str
    said: list[str]
    loopback: bool = False
    """Ask at the address of this machine, whose name may be known to nobody."""

    @property
    def token(self) -> str:
        return self.url.split("#")[1]

    @property
    def address(self) -> str:
        return self.url.split("#")[0]

    @property
    def reached_at(self) -> str:
        port = urllib.parse.urlsplit(self.address).port
        return f"http://127.0.0.1:{port}/" if self.loopback else self.address

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask as the script of the page does, except for the headers that are given; "" leaves one out."""
        origin = self.address.rstrip("/")
        sent = {"x-maskdpo-token": self.token, "origin": origin, "host": origin.removeprefix("http://")} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.reached_at + path, data)
        for name, value in sent.items():
            if value:
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
                content, status = reply.read(), reply.status
        except urllib.error.HTTPError as error:
            content, status = error.read(), error.code
        return status, json.loads(content) if content.startswith((b"{", b"[")) else content.decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal. Returns the exit code."""
        self.process.send_signal(by)
        return self.process.wait(DEADLINE_S)


@contextmanager
def serving(*arguments: object) -> Iterator[Serving]:
    """Run ``maskdpo review`` with these arguments until the block ends."""
    command = [sys.executable, "-m", "maskdpo", "review", *map(str, arguments), "--no-browser"]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    said: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            said.append(line.rstrip())
            if found := re.match(r"open +(http://\S+)", line):
                break
        else:
            raise AssertionError("\n".join(said))
        running = Serving(process, found[1], said, loopback="0.0.0.0" in arguments)
        _wait_until_it_answers(running)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_until_it_answers(running: Serving) -> None:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        try:
            if running.ask("")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")
