"""Writes pairs: the form of a pair record and of the files."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maskdpo.dataset.answers import AnswerText
from maskdpo.dataset.draw import Split
from maskdpo.dataset.strategies import Proposal
from maskdpo.errors import InputError
from maskdpo.io import record_writer
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Message, Pair, Prompt


def test_file(out: Path) -> Path:
    """Where the pairs of held-out topics go: ``pairs.jsonl`` -> ``pairs.test.jsonl``."""
    return out.with_name(f"{out.stem}.test{out.suffix}")


def own_test_file(out: Path) -> Path | None:
    """The test file beside pairs if their record says that ``build-pairs`` made both, else None."""
    file = test_file(out)
    if not file.exists():
        return None
    meta = read_meta(meta_file(out))
    return file if meta is not None and meta.command == "build-pairs" else None


@contextmanager
def pair_files(out: Path) -> Iterator[Callable[[Split, Pair], None]]:
    """Write pairs one by one, as JSONL or, by the suffix of ``out``, Parquet.

    Both files appear at the end of the block, and only if it ends without an error. Where this run has no test pairs,
    the test file of an earlier run is deleted.

    Raises:
        InputError: the test file exists and was not made by ``build-pairs``.
    """
    if test_file(out).exists() and own_test_file(out) is None:
        raise InputError(
            f"is where test pairs go, and no record beside {out.name} says that build-pairs has made it; move it away, "
            "or name another `out`",
            path=test_file(out),
        )
    with ExitStack() as files:
        opened = {"train": files.enter_context(record_writer(out))}

        def write(split: Split, pair: Pair) -> None:
            if split not in opened:
                opened[split] = files.enter_context(record_writer(test_file(out)))
            opened[split](pair)

        yield write
    if "test" not in opened:
        test_file(out).unlink(missing_ok=True)


def pair_record(prompt: Prompt, proposal: Proposal, chosen: AnswerText, rejected: AnswerText) -> Pair:
    """A pair of plain strings for answers that were sampled with ``--raw``, else of chat messages."""
    shown: str | list[Message] = prompt.prompt
    if isinstance(shown, str) and not proposal.chosen.raw:
        shown = [Message(role="user", content=shown)]
    plain = isinstance(shown, str)
    return Pair(
        id=proposal.id,
        prompt_id=prompt.id,
        topic=prompt.topic_or_id,
        prompt=shown,
        chosen=chosen.response if plain else [Message(role="assistant", content=chosen.response)],
        rejected=rejected.response if plain else [Message(role="assistant", content=rejected.response)],
        chosen_sentences=chosen.sentences,
        rejected_sentences=rejected.sentences,
        chosen_score=round(proposal.chosen.score, 6),
        rejected_score=round(proposal.rejected.score, 6),
        chosen_finish_reason=chosen.finish_reason,
        rejected_finish_reason=rejected.finish_reason,
        chosen_reasoning=chosen.reasoning,
        rejected_reasoning=rejected.reasoning,
        **chosen.template,
    )
