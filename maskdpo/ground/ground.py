"""``maskdpo ground``: fill the references of prompts with passages out of documents; resumable."""

import time
from dataclasses import asdict, dataclass
from itertools import chain, islice

from maskdpo.console import progress, say
from maskdpo.errors import InputError
from maskdpo.ground.answers import AnswerSentences, open_answers
from maskdpo.ground.index import Index, make_retriever, open_index
from maskdpo.ground.retriever import Found, Retriever
from maskdpo.ground.settings import GroundSettings
from maskdpo.ground.store import CorpusCounts, Passage
from maskdpo.io import Appender, read_prompts, refuse_overwriting
from maskdpo.io.lock import sole_writer
from maskdpo.redact import without_secrets
from maskdpo.run_record import RunMeta, meta_file, read_meta, refuse_replacing
from maskdpo.schemas import Prompt, Source
from maskdpo.stage_run import Run, by_role, check_same, set_aside

BATCH = 64
"""Prompts that are looked up, and written, together."""


@dataclass
class GroundStats:
    """What a run of ``ground`` did. The first fields are of the whole output, whichever run wrote it."""

    prompts: int = 0
    already_there: int = 0
    """Prompts that an earlier run has grounded."""
    grounded: int = 0
    """Prompts with at least one passage that was found."""
    nothing_found: int = 0
    """Prompts without any: none is made up."""
    without_reference: int = 0
    """Of these, prompts that have no reference of their own either."""
    passages: int = 0
    """Passages that were found and stand in references."""
    corpus: CorpusCounts | None = None
    """What was looked through; None where nothing was left to look up."""
    seconds: float = 0.0
    """Time of looking up in this run, without making the index."""

    def count(self, prompt: Prompt) -> None:
        self.prompts += 1
        found = sum(source is not None for source in prompt.sources or ())
        self.grounded += found > 0
        self.nothing_found += not found
        self.without_reference += not any(passage.strip() for passage in prompt.passages)
        self.passages += found


def ground(settings: GroundSettings) -> GroundStats:
    """Write every prompt with the passages that bear on it beside its own reference, in the order of the prompts.

    An interrupted run goes on. Where prompts or answers are others than before, the earlier output is set aside and all
    prompts are looked up anew. Passages that an earlier ``ground`` has put into the prompts themselves are replaced.

    Raises:
        OtherSettings: the output was made with other options or of other documents, and ``restart`` is off.
        UserError: bad input, an output of another command, or a retriever that cannot work.
    """
    out = settings.out
    refuse_overwriting(out, settings.prompts, *settings.responses, *settings.corpus)
    for part in settings.corpus:
        if part.is_dir() and out.resolve().is_relative_to(part.resolve()):
            raise InputError(
                f"lies among the documents ({part}), and would be one of them; name another output", path=out
            )
    prompts = read_prompts(settings.prompts)
    retriever = make_retriever(settings)
    with sole_writer(out):
        refuse_replacing(out, "ground", only_own=True)
        run, before = _record(settings, retriever)
        stats, done = GroundStats(), set[str]()

        def note(prompt: Prompt) -> None:
            done.add(prompt.id)
            stats.count(prompt)

        appender = Appender(out, Prompt, note) if before else None
        stats.already_there = len(done)
        wanted = list(islice(prompts.values(), settings.limit))
        missing = [prompt for prompt in wanted if prompt.id not in done]
        if not missing and before and before.status == "complete":
            return stats
        with open_answers(settings.responses, prompts) as answers:
            index = open_index(settings, retriever)
            stats.corpus = index.passages.counts
            if appender is None:
                set_aside(out, meta_file(out))
                appender = Appender(out, Prompt, note)
            run.begin()
            started = time.monotonic()
            with appender, progress("ground", len(wanted), "prompts", len(done)) as bar:
                for begin in range(0, len(missing), BATCH):
                    batch = missing[begin : begin + BATCH]
                    grounded = _ground(batch, [_queries(prompt, answers) for prompt in batch], index, settings)
                    appender.append(grounded)
                    for prompt in grounded:
                        stats.count(prompt)
                    bar.advance(len(batch), f"{stats.nothing_found:,} without a passage")
            stats.seconds = time.monotonic() - started
        run.finish(asdict(stats))
        return stats


def _record(settings: GroundSettings, retriever: Retriever) -> tuple[Run, RunMeta | None]:
    """The record of this run, and that of the run that it continues, if there is one."""
    options = {
        "passages": settings.passages,
        "sentence_passages": settings.sentence_passages if settings.responses else None,
        "passage_words": settings.passage_words,
        "text_column": settings.text_column,
        "retriever": settings.retriever,
        "retriever_version": retriever.version,
        "retriever_options": without_secrets(settings.retriever_options),
    }
    inputs = {
        "prompts": settings.prompts,
        **by_role("corpus", settings.corpus),
        **by_role("responses", settings.responses),
    }
    file = meta_file(settings.out)
    run = Run(file, "ground", options, inputs, restart=None)
    before = read_meta(file) if settings.out.exists() and not settings.restart else None
    if before is None:
        return run, None
    then, now = before.inputs, run.meta.inputs
    changed = [role for role in sorted(then.keys() | now.keys()) if then.get(role) != now.get(role)]
    hint = "Use another `out`, or `restart` to set it aside and begin anew"
    check_same(before, run.meta, file, hint, changed)
    run.meta.begun = before.begun  # prompts and answers that were added do not make void what follows from others
    if not changed:
        return run, before
    what = " and ".join(changed)
    say(f"{settings.out}: {what} changed since it was made: all are looked up anew, the old file is kept (.bak)")
    return run, None


def _queries(prompt: Prompt, answers: AnswerSentences) -> list[str]:
    """What is looked up: the question, then each sentence together with the question, for "He was born there" alone
    says nothing."""
    return [prompt.question, *(f"{prompt.question}\n{sentence}" for sentence in answers.of(prompt))]


def _ground(prompts: list[Prompt], queries: list[list[str]], index: Index, settings: GroundSettings) -> list[Prompt]:
    """The prompts with their passages: those of the question first, then those of the sentences in their order."""
    questions = index.retriever.search([asked[0] for asked in queries], settings.passages)
    sentences = [sentence for asked in queries for sentence in asked[1:]]
    of_sentences = iter(index.retriever.search(sentences, settings.sentence_passages) if sentences else ())
    grounded = []
    for prompt, of_question, asked in zip(prompts, questions, queries, strict=True):
        found: dict[int, Found] = {}
        for one in chain(of_question, *islice(of_sentences, len(asked) - 1)):
            found.setdefault(one.passage, one)
        grounded.append(_with_passages(prompt, [(index.passages[n], one.score) for n, one in found.items()]))
    return grounded


def _with_passages(prompt: Prompt, found: list[tuple[Passage, float]]) -> Prompt:
    """The prompt with these passages behind its own ones; a passage that stands in its own ones is not repeated."""
    own = prompt.own_passages
    new = [(passage, score) for passage, score in found if not any(passage.text in text for text in own)]
    if not new:
        if prompt.sources is None:
            return prompt
        return prompt.model_copy(update={"reference": own or None, "sources": None})
    sources = [
        Source(document=passage.document, title=passage.title, start=passage.start, end=passage.end, score=score)
        for passage, score in new
    ]
    reference = [*own, *(_shown(passage) for passage, _ in new)]
    return prompt.model_copy(update={"reference": reference, "sources": [None] * len(own) + sources})


def _shown(passage: Passage) -> str:
    """The text of a passage, below the title of its document where the text itself does not name it."""
    named = passage.title is None or passage.title.casefold() in passage.text.casefold()
    return passage.text if named else passage.titled
