"""From documents and prompts to answers: ``ground`` and ``sample``."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from maskdpo import io
from maskdpo.api.given import no_dry_run, records_given
from maskdpo.io.memory import File, as_files, kept_as_file
from maskdpo.schemas import Prompt, Response
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from maskdpo.backends.base import Backend
    from maskdpo.ground.ground import GroundStats
    from maskdpo.sample import SampleStats


@overload
def ground_prompts(
    prompts: File | Iterable[Prompt],
    *,
    corpus: File | Sequence[File],
    responses: File | Iterable[Response] | None = None,
    out: None = None,
    **settings: Any,
) -> list[Prompt]: ...
@overload
def ground_prompts(
    prompts: File | Iterable[Prompt],
    *,
    corpus: File | Sequence[File],
    responses: File | Iterable[Response] | None = None,
    out: File,
    **settings: Any,
) -> "GroundStats": ...
def ground_prompts(
    prompts: File | Iterable[Prompt],
    *,
    corpus: File | Sequence[File],
    responses: File | Iterable[Response] | None = None,
    out: File | None = None,
    **settings: Any,
) -> "list[Prompt] | GroundStats":
    """Fill the references of prompts with passages out of documents: ``maskdpo ground``.

    Args:
        corpus: a file or folder of documents, ``hub:user/name``, or several of them.
        responses: answers whose sentences are looked up too.
        out: prompt records, appended as they come; the same call continues an interrupted run.
        settings: of ``ground.settings.GroundSettings``, such as ``passages``, ``passage_words`` or ``text_column``.

    Returns:
        What the run did; without ``out`` the prompts with their passages.
    """
    from maskdpo.ground.ground import ground
    from maskdpo.ground.settings import GroundSettings

    with (
        as_files(prompts=(prompts, Prompt), responses=(responses, Response)) as files,
        tempfile.TemporaryDirectory() as folder,
    ):
        written = Path(folder) / "grounded.jsonl" if out is None else Path(out)
        if out is not None:
            files["prompts"] = kept_as_file(prompts, Prompt, Path(f"{out}.prompts.jsonl"))
        answers = (files["responses"],) if files["responses"] else ()
        told = {"prompts": files["prompts"], "responses": answers, "corpus": corpus, "out": written, **settings}
        stats = ground(load_settings(GroundSettings, told))
        return stats if out is not None else list(io.read_records(written, Prompt))


@overload
def sample_responses(
    prompts: File | Iterable[Prompt], *, model: "str | Backend", out: None = None, **settings: Any
) -> Iterator[Response]: ...
@overload
def sample_responses(
    prompts: File | Iterable[Prompt], *, model: "str | Backend", out: File, **settings: Any
) -> "SampleStats": ...
def sample_responses(
    prompts: File | Iterable[Prompt], *, model: "str | Backend", out: File | None = None, **settings: Any
) -> "Iterator[Response] | SampleStats":
    """Sample several answers to every prompt: ``maskdpo sample``.

    Args:
        model: a name, or a backend that is there already.
        out: response records, appended as they come; the same call continues an interrupted run.
        settings: of ``sample.SampleSettings``, such as ``n``, ``max_tokens``, ``temperature`` or ``backend``.

    Returns:
        What the run did; without ``out`` the responses, in the order in which they come.
    """
    from maskdpo.backends import make_backend as make
    from maskdpo.sample import SampleSettings, sample, stream_responses
    from maskdpo.shard import in_shard

    name = model if isinstance(model, str) else model.model
    given = {"prompts": "-", "out": "-", "model": name, **settings}
    loaded = load_settings(SampleSettings, given)
    no_dry_run(loaded.dry_run, "sample")
    backend = make(name, loaded) if isinstance(model, str) else model
    if out is None:
        asked = in_shard(islice(records_given(prompts, Prompt), loaded.limit), loaded.shard, lambda prompt: prompt.id)
        return stream_responses(asked, backend, loaded.sampling(), raw=loaded.raw)
    file = kept_as_file(prompts, Prompt, Path(f"{out}.prompts.jsonl"))
    return sample(
        file,
        Path(out),
        backend,
        loaded.sampling(),
        raw=loaded.raw,
        restart=loaded.restart,
        limit=loaded.limit,
        shard=loaded.shard,
    )
