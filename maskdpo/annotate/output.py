"""The output of ``maskdpo annotate``: what it holds, whether it may be continued, and how records get into it."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from maskdpo.annotate.stats import AnnotateStats
from maskdpo.errors import InputError
from maskdpo.identity import fingerprint
from maskdpo.io import Appender, reorder
from maskdpo.run_record import recorded_option
from maskdpo.schemas import Annotation, JudgeInfo, Response, Sentence, Status


class Known(NamedTuple):
    """What is kept in mind of a response: enough to see that it is the one that was annotated."""

    prompt_id: str
    digest: bytes


def known(response: Response, prompt_id: str) -> Known:
    """``prompt_id`` is the response's own, as the prompts hold it: one string for all answers to a prompt."""
    return Known(prompt_id, _digest(response.response))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def failed_of(record: Annotation) -> list[Sentence]:
    """The sentences without a verdict."""
    return [sentence for sentence in record.sentences if sentence.status is not Status.OK]


def retry_file(out: Path) -> Path:
    """Where renewed records lie until the end of a run, when they take the place of the ones in ``out``."""
    return out.with_name(out.name + ".retry")


def as_recorded(info: JudgeInfo, file: Path) -> JudgeInfo:
    """The judge, its model's files named as the run that is continued has recorded them, if they can be the same."""
    if info.name != "llm" or info.model is None or recorded_option(file, "model") != info.model:
        return info
    files = fingerprint(info.model, recorded_option(file, "revision") or info.model)
    return info.model_copy(update={"revision": None if files == info.model else files})


class Output:
    """What the output holds, and which of its sentences are to be asked again."""

    def __init__(self, path: Path, responses: dict[str, Known], info: JudgeInfo, retry_failed: bool) -> None:
        self.path = path
        self.responses = responses
        self.written: dict[str, None] = {}
        """Ids in the order of the file."""
        self.failed: dict[str, int] = {}
        """How many sentences to ask again, by the answer's id."""
        self.stats = AnnotateStats(responses=len(responses))
        self._info = info
        self._retry_failed = retry_failed
        self.appender = Appender(path, Annotation, self._take_in)
        self.at_start = len(self.written)
        self.stats.already_there = sum(response_id in self.written for response_id in responses)
        self.missing = len(responses) - self.stats.already_there

    def _take_in(self, record: Annotation) -> None:
        if record.judge != self._info:  # the meta file tells it sooner, where it is still beside the output
            raise InputError(
                f"{record.id!r} has its labels from another judge ({_differences(record.judge, self._info)}); "
                "labels of different judges are not mixed: use another --out or --restart",
                path=self.path,
            )
        response = self.responses.get(record.id)  # None: it is gone from its file, its annotation stays as it is
        if response is not None and response.digest != _digest(record.response):
            message = f"{record.id!r} is annotated here with another text; use another --out or --restart"
            raise InputError(message, path=self.path)
        if response is not None and response.prompt_id != record.prompt_id:
            raise InputError(
                f"{record.id!r} is annotated here as an answer to the prompt {record.prompt_id!r}, and now it answers "
                f"{response.prompt_id!r}; use another --out or --restart",
                path=self.path,
            )
        self.written[record.id] = None
        self.stats.file.add(record)
        failed = len(failed_of(record))
        if failed and response is not None and self._retry_failed:
            self.failed[record.id] = failed

    def write(self, batch: list[Annotation], renewals: Appender[Annotation]) -> None:
        renewals.append(record for record in batch if record.id in self.failed)
        self.appender.append(record for record in batch if record.id not in self.failed)
        for record in batch:
            again = self.failed.get(record.id, 0)
            self.stats.run_responses += 1
            self.stats.run_sentences += again or len(record.sentences)
            self.stats.run_retried += again
            self.stats.file.add(record)
            self.written[record.id] = None

    def finish(self) -> None:
        """Put the renewed records in, and all into the order of the responses: one rewrite."""
        if self.failed or list(self.written) != list(self.responses):
            reorder(self.path, Annotation, self.responses, renewed=retry_file(self.path) if self.failed else None)


def merge_left_over(out: Path, info: JudgeInfo) -> None:
    """Put the renewed records in that an interrupted run has left beside the output."""

    def check(record: Annotation) -> None:
        if record.judge != info:
            what = _differences(record.judge, info)
            raise InputError(f"{record.id!r} has its labels from another judge ({what}); move the file away", path=side)

    side = retry_file(out)
    if side.exists():
        Appender(side, Annotation, check)  # both may end in a torn line
        Appender(out, Annotation, lambda _: None)
        reorder(out, Annotation, (), renewed=side)


def _differences(before: JudgeInfo | None, now: JudgeInfo) -> str:
    """In which fields two judges differ, as the record of a run says it."""
    if before is None:
        return f"none is named, it may be a gold file -> {now.name!r}"
    old, new = before.model_dump(), now.model_dump()
    return "; ".join(f"{key}: {old[key]!r} -> {new[key]!r}" for key in new if old[key] != new[key])
