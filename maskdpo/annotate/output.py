"""The output of ``maskdpo annotate``: what it holds, whether a run may continue it, and how records are added."""

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from maskdpo.annotate.stats import AnnotateStats, SentenceCounts
from maskdpo.console import counted, warn
from maskdpo.errors import CannotContinue
from maskdpo.identity import fingerprint
from maskdpo.io import Appender, reorder
from maskdpo.run_record import recorded_option
from maskdpo.schemas import FAILED, Annotation, JudgeInfo, Response, Sentence, Status
from maskdpo.text.fragment import fragment_was_judged
from maskdpo.text.language_counts import LanguageCounts

RETRIED = FAILED | {Status.NO_REFERENCE}


class ResponseDigest(NamedTuple):
    """What stays in memory of a response: enough to check that an annotation is of this response."""

    prompt_id: str
    digest: bytes
    length: int
    """Characters, for the time left."""


def digest_of(response: Response, prompt_id: str) -> ResponseDigest:
    """``prompt_id`` is the string that the prompts hold: all answers to a prompt share it, which saves memory."""
    return ResponseDigest(prompt_id, _digest(response.response), len(response.response))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def retried_sentences(record: Annotation) -> list[Sentence]:
    """The sentences to judge again: those that the judge has not answered, or had no reference to be asked about."""
    return [sentence for sentence in record.sentences if sentence.status in RETRIED]


def retry_file(out: Path) -> Path:
    """The file of records that were judged again. At the end of a run they replace the ones in ``out``."""
    return out.with_name(out.name + ".retry")


def as_recorded(info: JudgeInfo, file: Path) -> JudgeInfo:
    """The judge, with the files of its model named as in the record of the run that is continued, if they can be the
    same files.
    """
    if info.model is None or recorded_option(file, "model") != info.model:
        return info
    if fingerprint(info.model) != (info.revision or info.model):
        return info  # a judge of one's own names revisions in its own way
    files = fingerprint(info.model, recorded_option(file, "revision") or info.model)
    return info.model_copy(update={"revision": None if files == info.model else files})


class AnnotationFile:
    """What the output holds, and which of its sentences are to be judged again.

    Args:
        retry_failed: whether to judge sentences again at all.
        skipped: prompts without a reference: sentences of their answers are not judged again.
        languages: the languages that prompts name, by id.
    """

    def __init__(
        self,
        path: Path,
        responses: dict[str, ResponseDigest],
        info: JudgeInfo,
        *,
        retry_failed: bool,
        skipped: AbstractSet[str] = frozenset(),
        languages: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.responses = responses
        self.written: dict[str, None] = {}
        """Ids in the order of the file."""
        self.fragments_judged = 0
        """Answers whose fragment has the status of a sentence, as earlier versions of maskdpo gave it."""
        self.failed: dict[str, int] = {}
        """Number of sentences to judge again, by the id of the answer."""
        self.stats = AnnotateStats(len(responses), file=SentenceCounts(languages=LanguageCounts(languages)))
        self._info = info
        self._retry_failed = retry_failed
        self._skipped = skipped
        self.appender = Appender(path, Annotation, self._read_existing)
        self.at_start = len(self.written)
        self.stats.already_there = sum(response_id in self.written for response_id in responses)
        self.missing = len(responses) - self.stats.already_there

    def _read_existing(self, record: Annotation) -> None:
        if record.judge != self._info:  # the meta file shows this earlier, where it is still beside the output
            raise CannotContinue(
                f"{record.id!r} has its labels from another judge ({_differences(record.judge, self._info)}); "
                "labels of different judges are not mixed: use another `out` or `restart`",
                path=self.path,
            )
        response = self.responses.get(record.id)  # None: no longer in the file; its annotation stays
        if response is not None and response.digest != _digest(record.response):
            raise CannotContinue(
                f"{record.id!r} was annotated here with another text of the answer; name another `out`, or set this "
                "file aside with `restart`",
                path=self.path,
            )
        if response is not None and response.prompt_id != record.prompt_id:
            raise CannotContinue(
                f"{record.id!r} is annotated here as an answer to the prompt {record.prompt_id!r}, and now it answers "
                f"{response.prompt_id!r}; use another `out` or `restart`",
                path=self.path,
            )
        self.written[record.id] = None
        self.stats.file.add(record)
        self.fragments_judged += fragment_was_judged(record)
        failed = len(retried_sentences(record))
        if failed and response is not None and self._retry_failed and record.prompt_id not in self._skipped:
            self.failed[record.id] = failed

    def notice_fragments(self) -> None:
        """An output of a version that judged fragments may stay, but is not continued."""
        if not self.fragments_judged:
            return
        answers = counted(self.fragments_judged, "answer")
        what = f"in {answers} the torn sentence at a cut-off was judged, by an earlier version"
        if self.missing:
            raise CannotContinue(
                f"{what}, and this version judges none: name another `out` for the other answers, or set this file "
                "aside with `restart`",
                path=self.path,
            )
        warn(f"{self.path}: {what}, so it trains and counts; `maskdpo relabel` takes these labels away without a call")

    def write(self, batch: list[Annotation], retried: Appender[Annotation]) -> None:
        """Append new records to the output, and records that were judged again to ``retried``."""
        retried.append(record for record in batch if record.id in self.failed)
        self.appender.append(record for record in batch if record.id not in self.failed)
        for record in batch:
            again = self.failed.get(record.id, 0)
            self.stats.run_responses += 1
            self.stats.run_sentences += again or len(record.sentences)
            self.stats.run_retried += again
            self.stats.file.add(record)
            self.written[record.id] = None

    def finish(self) -> None:
        """Insert the records that were judged again and sort all by the order of the responses, in one rewrite."""
        if self.failed or list(self.written) != list(self.responses):
            reorder(self.path, Annotation, self.responses, replacements=retry_file(self.path) if self.failed else None)


def merge_retry_file(out: Path, info: JudgeInfo) -> None:
    """Insert the records that were judged again by an interrupted run, which are still beside the output."""

    def check(record: Annotation) -> None:
        if record.judge != info:
            what = _differences(record.judge, info)
            raise CannotContinue(
                f"{record.id!r} has its labels from another judge ({what}); move the file away", path=retried
            )

    retried = retry_file(out)
    if retried.exists():
        Appender(retried, Annotation, check)  # both files may end in a torn line
        Appender(out, Annotation, lambda _: None)
        reorder(out, Annotation, (), replacements=retried)


def _differences(before: JudgeInfo | None, now: JudgeInfo) -> str:
    """The fields in which two judges differ, in the form that errors about run records have."""
    if before is None:
        return f"none is named, it may be a gold file -> {now.name!r}"
    old, new = before.model_dump(), now.model_dump()
    return "; ".join(f"{key}: {old[key]!r} -> {new[key]!r}" for key in new if old[key] != new[key])
