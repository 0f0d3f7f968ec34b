"""Reads answers twice: first what pairing needs of all of them, then the texts of single ones."""

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from maskdpo.console import progress
from maskdpo.dataset.candidates import Candidate, normalised, template_settings
from maskdpo.dataset.filters import DroppedAnswer, answer_problem
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.score import WeightedCounts, by_confidence, score_of
from maskdpo.dataset.stats import PairStats
from maskdpo.errors import InputError
from maskdpo.io import Located, open_input, read_located, read_records, shown_as
from maskdpo.schemas import Annotation, FinishReason, PairSentence, Prompt
from maskdpo.text.fragment import fragment_was_judged
from maskdpo.verdicts.gold import with_gold

KEPT_TEXTS = 2048
"""Texts kept in memory: an answer may be in several pairs of its topic, and each pair is read twice."""


def read_prompts_without_references(file: Path) -> dict[str, Prompt]:
    """All prompts by id, without what pairs do not need: references may be long."""
    left_out: dict[str, Any] = {"reference": None, "sources": None, "meta": {}}
    return {prompt.id: prompt.model_copy(update=left_out) for prompt in read_records(file, Prompt)}


def read_candidates(
    files: Sequence[Path],
    prompts: Mapping[str, Prompt],
    options: PairOptions,
    stats: PairStats,
    gold: Mapping[str, Annotation],
) -> dict[str, list[Candidate]]:
    """First pass: the candidates of every prompt that has answers. Dropped answers are counted in ``stats``.

    Args:
        gold: labels of people, by the id of the answer.
    """
    found: dict[str, list[Candidate]] = {}
    with progress("build-pairs: reading", None, "answers") as bar:
        for item in read_located(files, Annotation, options.limit):
            prompt = prompts.get(item.record.prompt_id)
            if prompt is None:
                raise item.error("prompt_id", f"no prompt has the id {item.record.prompt_id!r}")
            candidates = found.setdefault(prompt.id, [])
            judged, answer = item.record, with_gold(item.record, gold)
            stats.gold_answers += answer is not judged
            candidate = _candidate(item._replace(record=answer), prompt.id, options)
            if isinstance(candidate, DroppedAnswer):
                stats.dropped_answers[candidate] += 1
            else:
                candidates.append(candidate)
                stats.add_score("answers", candidate.score)
            stats.answers += 1
            stats.fragments_judged += judged.judge is not None and fragment_was_judged(judged)
            if stats.answers % 1000 == 0:
                bar.advance(1000)
    return found


def _candidate(item: Located[Annotation], prompt_id: str, options: PairOptions) -> Candidate | DroppedAnswer:
    answer = item.record
    if answer.lacked_reference:
        return DroppedAnswer.NO_REFERENCE
    counts = answer.counts
    weighted = by_confidence(answer.whole_sentences) if options.confidence_weighted else WeightedCounts(*counts)
    score = score_of(weighted, options.score)
    problem = answer_problem(counts, score, options)
    if problem is not None:
        return problem
    assert score is not None
    return Candidate(
        id=answer.id,
        prompt_id=prompt_id,
        path=item.path,
        line=item.line,
        score=score,
        counts=counts,
        characters=len(answer.response),
        text_hash=hashlib.blake2b(normalised(answer.response).encode(errors="replace"), digest_size=16).digest(),
        cut_off=answer.finish_reason == "length",
        fragment=len(answer.whole_sentences) < len(answer.sentences),
        raw=bool((answer.sampling or {}).get("raw", False)),
        template=json.dumps(template_settings(answer), sort_keys=True),
    )


class AnswerText(NamedTuple):
    """The parts of an answer that a pair record holds."""

    response: str
    normalised: str
    sentences: list[PairSentence]
    finish_reason: FinishReason | None
    reasoning: str | None
    template: dict[str, Any]
    """``template_settings``."""


class AnswerTexts:
    """Second pass: reads the text of a candidate from its line. The files may be read in any order."""

    def __init__(self, files: Mapping[Path, "_Lines"], gold: Mapping[str, Annotation]) -> None:
        self._files, self._gold = files, gold
        self.of = lru_cache(KEPT_TEXTS)(self._of)

    def _of(self, candidate: Candidate) -> AnswerText:
        answer = with_gold(self._read(candidate), self._gold)
        sentences = [
            PairSentence(start=s.start, end=s.end, label=s.label, confidence=s.confidence) for s in answer.sentences
        ]
        return AnswerText(
            answer.response,
            normalised(answer.response),
            sentences,
            answer.finish_reason,
            answer.reasoning,
            template_settings(answer),
        )

    def _read(self, candidate: Candidate) -> Annotation:
        try:
            record = Annotation.model_validate_json(self._files[candidate.path].line(candidate.line))
        except ValidationError:
            record = None
        if record is None or record.id != candidate.id:
            message = "was changed while this command read it; repeat the command"
            raise InputError(message, path=candidate.path, line=candidate.line)
        return record


class _Lines:
    """The lines of a file, by their number."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._begins = array("Q", [0])  # byte offsets: line i has the bytes from offset i - 1 to offset i
        for line in file:
            self._begins.append(self._begins[-1] + len(line))

    def line(self, number: int) -> bytes:
        """The text of a line, counted from 1; empty where there is no such line."""
        if number >= len(self._begins):
            return b""
        begin, end = self._begins[number - 1], self._begins[number]
        self._file.seek(begin)
        return self._file.read(end - begin).strip().removeprefix(b"\xef\xbb\xbf")


@contextmanager
def open_answer_texts(files: Sequence[Path], gold: Mapping[str, Annotation]) -> Iterator[AnswerTexts]:
    with ExitStack() as stack:
        lines = {shown_as(path, Annotation): _Lines(stack.enter_context(open_input(path))) for path in files}
        yield AnswerTexts(lines, gold)
