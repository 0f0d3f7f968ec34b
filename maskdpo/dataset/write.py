"""Pairs onto the disk: the only place that knows what a pair record and a pairs file look like."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maskdpo.dataset.lots import Split
from maskdpo.dataset.reading import Text
from maskdpo.dataset.strategies import Proposal
from maskdpo.errors import InputError
from maskdpo.io import record_writer
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Message, Pair, Prompt


def test_file(out: Path) -> Path:
    """Where the pairs of held-out topics go: ``pairs.jsonl`` -> ``pairs.test.jsonl``."""
    return out.with_name(f"{out.stem}.test{out.suffix}")


def own_test_file(out: Path) -> Path | None:
    """The test file beside pairs where ``build-pairs`` has made them, by their record; another's file is none."""
    file = test_file(out)
    if not file.exists():
        return None
    meta = read_meta(meta_file(out))
    return file if meta is not None and meta.command == "build-pairs" else None


@contextmanager
def pair_files(out: Path) -> Iterator[Callable[[Split, Pair], None]]:
    """Write pairs one by one, as JSONL or, by the name, Parquet.

    Both files appear whole when the block ends well, and nothing changes if it does not.
    A test file of an earlier run goes where this run has no test pairs; one of somebody else is refused.
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


def pair_record(prompt: Prompt, proposal: Proposal, chosen: Text, rejected: Text) -> Pair:
    """Plain strings for answers that were sampled with ``--raw``, chat messages for all others."""
    shown: str | list[Message] = prompt.prompt
    if isinstance(shown, str) and not proposal.better.raw:
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
        chosen_score=round(proposal.better.score, 6),
        rejected_score=round(proposal.worse.score, 6),
        chosen_finish_reason=chosen.finish_reason,
        rejected_finish_reason=rejected.finish_reason,
        chosen_reasoning=chosen.reasoning,
        rejected_reasoning=rejected.reasoning,
        **chosen.template,
    )
