"""The stages as Python functions; ``import maskdpo`` offers them. docs/python.md is a walk through all of them.

Records are given as a path, or as an iterable of records. A function with ``out`` writes files as its command does,
resumable, and returns what the run did; without ``out`` the function returns records. Further settings are those of the
command by their Python names, such as ``max_tokens=64``: ``maskdpo COMMAND --help`` and the settings models list them.
Every function raises ``UserError`` for what the caller can put right, in words that name parameters and fields.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, overload

from maskdpo import io
from maskdpo.errors import UserError
from maskdpo.io.memory import File, as_file, as_files, checked, kept_as_file
from maskdpo.schemas import Annotation, Decision, FileRecord, Pair, Prompt, Response
from maskdpo.settings import load_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from maskdpo.annotate.judge import Judge
    from maskdpo.annotate.relabel import RelabelStats
    from maskdpo.annotate.stats import AnnotateStats
    from maskdpo.backends.base import Backend
    from maskdpo.dataset.hub.push import PushResult
    from maskdpo.dataset.stats import PairStats
    from maskdpo.evaluate.evaluation import Evaluation
    from maskdpo.evaluate.page import PageStats
    from maskdpo.evaluate.training import TrainingStats
    from maskdpo.ground.ground import GroundStats
    from maskdpo.judge_training.result import JudgeResult
    from maskdpo.merge.merge import MergeStats
    from maskdpo.people.agree import AgreeResult
    from maskdpo.sample import SampleStats
    from maskdpo.shard import Shard
    from maskdpo.text.splitters import Splitter
    from maskdpo.train.data.encode import Drop, EncodedPair, Encoder
    from maskdpo.train.run.train import TrainResult
    from maskdpo.verdicts.decision import Calibration

R = TypeVar("R", bound=FileRecord)


class BuiltPairs(NamedTuple):
    """What ``build_pairs`` makes in memory."""

    train: list[Pair]
    test: list[Pair]
    """Pairs of held-out topics."""
    stats: "PairStats"


def read_records(file: File, kind: type[R]) -> Iterator[R]:
    """The records of a file, one by one, checked.

    Args:
        file: JSONL, Parquet, Arrow, a dataset folder, or ``hub:user/name``.
        kind: ``Prompt``, ``Response``, ``Annotation`` or ``Pair``.
    """
    return io.read_records(Path(file), kind)


def write_records(file: File, records: Iterable[FileRecord]) -> None:
    """Write records of one kind as JSONL, or as Parquet if the name ends in ``.parquet``: the file appears whole."""
    io.write_records(Path(file), checked(records, Prompt, Response, Annotation, Pair))


def make_backend(model: str, backend: str = "transformers", **settings: Any) -> "Backend":
    """What runs a model: this process (``transformers``, ``vllm``) or a server (``openai``). Models are loaded late.

    Args:
        settings: of ``backends.settings.BackendSettings``, such as ``api_base`` or ``batch_size``.
    """
    from maskdpo.backends import make_backend as make
    from maskdpo.backends.settings import BackendSettings

    return make(model, load_settings(BackendSettings, {"backend": backend, **settings}))


def make_judge(judge: str, **settings: Any) -> "Judge":
    """A judge by its name: ``lexical``, ``llm`` (with ``model``), or one of your own.

    Args:
        settings: of ``annotate.settings.JudgeSettings``, such as ``model``, ``protocol``, ``backend`` or ``api_base``.
    """
    from maskdpo.annotate.settings import JudgeSettings

    return load_settings(JudgeSettings, {"judge": judge, **settings}).make_judge()


def make_splitter(splitter: str = "markdown", **options: Any) -> "Splitter":
    """A sentence splitter by its name: ``markdown``, ``spacy``, ``nltk``, or one of your own with its options."""
    from maskdpo.text.splitters import get_splitter

    return get_splitter(splitter, options=options)


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

    name = model if isinstance(model, str) else model.model
    given = {"prompts": "-", "out": "-", "model": name, **settings}
    loaded = load_settings(SampleSettings, given)
    _no_dry_run(loaded.dry_run, "sample")
    backend = make(name, loaded) if isinstance(model, str) else model
    if out is None:
        asked = _in_shard(islice(_records(prompts, Prompt), loaded.limit), loaded.shard, lambda prompt: prompt.id)
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
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: None = None,
    **settings: Any,
) -> Iterator[Annotation]: ...
@overload
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: File,
    **settings: Any,
) -> "AnnotateStats": ...
def annotate_responses(
    prompts: File | Iterable[Prompt],
    responses: File | Sequence[File] | Iterable[Response],
    *,
    judge: "str | Judge",
    splitter: "str | Splitter" = "markdown",
    out: File | None = None,
    **settings: Any,
) -> "Iterator[Annotation] | AnnotateStats":
    """Split every answer into sentences and have each labelled against the reference: ``maskdpo annotate``.

    Args:
        responses: a path, several paths, or records.
        judge: a name, or a judge that is there already.
        splitter: a name, or a splitter that is there already.
        out: annotation records, appended as they come; the same call continues an interrupted run.
        settings: of ``annotate.settings.AnnotateSettings``, such as ``model``, ``protocol`` or ``retry_failed``.

    Returns:
        What the run did; without ``out`` the annotations, in the order in which the judge is done with them.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.labelling import annotate, stream_annotations
    from maskdpo.annotate.settings import AnnotateSettings

    names = {
        "judge": judge if isinstance(judge, str) else "lexical",
        "splitter": splitter if isinstance(splitter, str) else "markdown",
    }
    if out is None or not _several(responses):
        responses = list(_records(responses, Response))
    with _files_of(responses, Response, name="responses") as read:  # a splitter may learn from them
        given = {"prompts": "-", "responses": read, "out": out or "-", **names, **settings}
        loaded = load_settings(AnnotateSettings, given)
        _no_dry_run(loaded.dry_run, "annotate")
        made = loaded.make_judge() if isinstance(judge, str) else judge
        cut = loaded.make_splitter() if isinstance(splitter, str) else splitter
    rule = read_rule(loaded.calibration, loaded.min_confidence)
    if out is None:
        if loaded.summary or loaded.retry_failed or loaded.restart:
            raise UserError("`summary`, `retry_failed` and `restart` go with `out`")
        known = {prompt.id: prompt for prompt in _records(prompts, Prompt)}
        answers = _in_shard(
            islice(_records(responses, Response), loaded.limit), loaded.shard, lambda one: one.prompt_id
        )
        return stream_annotations(known, answers, made, cut, rule=rule, missing_reference=loaded.missing_reference)
    return annotate(
        kept_as_file(prompts, Prompt, Path(f"{out}.prompts.jsonl")),
        _several(responses) or kept_as_file(cast(Any, responses), Response, Path(f"{out}.responses.jsonl")),
        Path(out),
        made,
        cut,
        restart=loaded.restart,
        retry_failed=loaded.retry_failed,
        limit=loaded.limit,
        shard=loaded.shard,
        summary=loaded.summary,
        options=loaded.own_options(),
        rule=rule,
        missing_reference=loaded.missing_reference,
    )


def merge_outputs(parts: Sequence[File], *, out: File) -> "MergeStats":
    """Put the outputs of all parts of one run together: ``maskdpo merge``.

    Args:
        parts: what ``sample_responses`` or ``annotate_responses`` have written with ``shard``, in any order.
        out: the records in the order of the input, as one run would have written them, and its record.
    """
    from maskdpo.merge.merge import MergeSettings, merge

    loaded = load_settings(MergeSettings, {"parts": parts, "out": out})
    return merge(loaded.parts, loaded.out)


def calibrate_annotations(
    annotations: File | Iterable[Annotation],
    *,
    gold: File | Iterable[Annotation],
    out: File | None = None,
    prompts: File | Iterable[Prompt] | None = None,
    **settings: Any,
) -> "Calibration":
    """Fit what turns the scores of a judge into labels to gold labels: ``maskdpo calibrate``.

    Args:
        gold: annotations with human labels of some of the answers.
        out: the calibration as a file (JSON), for ``annotate_responses`` and ``relabel_annotations``.
        prompts: for the topics, over which the figures are cross-validated.
        settings: of ``calibrate.settings.CalibrateSettings``, such as ``aim`` or ``abstain``.

    Returns:
        The calibration, with its figures ``before`` and, on ``held_out`` topics, after.
    """
    from maskdpo.calibrate.calibrate import calibrate
    from maskdpo.calibrate.settings import CalibrateSettings

    with (
        as_files(annotations=(annotations, Annotation), gold=(gold, Annotation), prompts=(prompts, Prompt)) as files,
        tempfile.TemporaryDirectory() as folder,
    ):
        written = Path(folder) / "calibration.json" if out is None else out
        return calibrate(load_settings(CalibrateSettings, {**files, "out": written, **settings})).calibration


@overload
def relabel_annotations(
    annotations: File | Iterable[Annotation], *, out: None = None, **settings: Any
) -> Iterator[Annotation]: ...
@overload
def relabel_annotations(annotations: File | Iterable[Annotation], *, out: File, **settings: Any) -> "RelabelStats": ...
def relabel_annotations(
    annotations: File | Iterable[Annotation], *, out: File | None = None, **settings: Any
) -> "Iterator[Annotation] | RelabelStats":
    """Decide labels anew from the scores that annotations hold: ``maskdpo relabel``. No judge is asked.

    Args:
        out: annotation records.
        settings: of ``annotate.settings.RelabelSettings``: ``calibration`` (a file, or what ``calibrate_annotations``
            has returned), ``min_confidence`` and ``summary``.

    Returns:
        What has changed; without ``out`` the annotations.
    """
    from maskdpo.annotate.deciding import read_rule
    from maskdpo.annotate.relabel import relabel, stream_relabelled
    from maskdpo.annotate.settings import RelabelSettings
    from maskdpo.verdicts.decision import Calibration, Rule

    made = settings.pop("calibration") if isinstance(settings.get("calibration"), Calibration) else None
    loaded = load_settings(RelabelSettings, {"annotations": "-", "out": out or "-", **settings})
    rule = Rule(made, loaded.min_confidence) if made else read_rule(loaded.calibration, loaded.min_confidence)
    if out is None:
        if loaded.summary:
            raise UserError("`summary` goes with `out`")
        return stream_relabelled(_records(annotations, Annotation), rule)
    with as_file(annotations, Annotation, name="annotations") as file:
        return relabel(file, Path(out), rule, summary=loaded.summary)


@overload
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: None = None,
    gold: File | None = None,
    **settings: Any,
) -> BuiltPairs: ...
@overload
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: File,
    gold: File | None = None,
    **settings: Any,
) -> "PairStats": ...
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: File | None = None,
    gold: File | None = None,
    **settings: Any,
) -> "BuiltPairs | PairStats":
    """Build preference pairs that keep the labels of their sentences: ``maskdpo build-pairs``.

    Args:
        annotations: a path, several paths, or records.
        out: pair records; pairs of held-out topics go to ``NAME.test.jsonl`` beside this file.
        gold: annotations with labels of people, a file, which go before those of the judge.
        settings: of ``dataset.options.PairOptions``, such as ``strategy``, ``score``, ``min_margin`` or ``test_size``.

    Returns:
        Counts of everything that was kept and dropped; without ``out`` also the pairs themselves.
    """
    from maskdpo.dataset.options import PairOptions
    from maskdpo.dataset.pairs import build_pairs as build
    from maskdpo.dataset.write import test_file

    options = load_settings(PairOptions, settings)
    with (
        as_file(prompts, Prompt, name="prompts") as asked,
        _files_of(annotations, Annotation, name="annotations") as labelled,
        tempfile.TemporaryDirectory() as folder,
    ):
        pairs = Path(folder) / "pairs.jsonl" if out is None else Path(out)
        stats = build(asked, labelled, pairs, options, gold_file=Path(gold) if gold is not None else None)
        if out is not None:
            return stats
        train, test = (list(io.read_records(file, Pair)) if file.exists() else [] for file in (pairs, test_file(pairs)))
        return BuiltPairs(train, test, stats)


def train_model(pairs: File | Iterable[Pair], out: File, *, model: str, **settings: Any) -> "TrainResult | None":
    """Train a model on pairs with Mask-DPO or another method: ``maskdpo train``.

    Args:
        pairs: records in memory are kept as ``OUT.pairs.jsonl`` beside ``out``, so that the run can be resumed.
        out: folder for the trained model; the same call continues an interrupted run.
        model: ``smollm2``, a model folder, or a Hub id.
        settings: of ``train.config.TrainConfig`` and ``train.settings.RunOptions``, such as ``method`` or ``lr``.

    Returns:
        What was done, with the figures of every step; None where ``out`` already holds the finished run.
    """
    from maskdpo.train.run.train import train
    from maskdpo.train.settings import TrainSettings

    kept = Path(f"{out}.pairs.jsonl")
    file = pairs if isinstance(pairs, str | Path) else kept
    loaded = load_settings(TrainSettings, {"pairs": file, "out": out, "model": model, **settings})
    if loaded.nproc > 1 or loaded.dry_run or loaded.push:
        raise UserError("`nproc`, `dry_run` and `push` are for the command `maskdpo train`; use torchrun for processes")
    kept_as_file(pairs, Pair, kept)
    return train(loaded.pairs, loaded.out, loaded.config(), loaded)


def train_judge(
    labelled: File | Iterable[Annotation] | Sequence[File],
    prompts: File | Iterable[Prompt] | Sequence[File],
    out: File,
    *,
    model: str,
    **settings: Any,
) -> "JudgeResult | None":
    """Train a judge on labelled sentences: ``maskdpo train-judge``.

    Args:
        labelled: a path, several paths, or records, which are kept as ``OUT.labelled.jsonl`` beside ``out``.
        prompts: with references; several paths: one for each of ``labelled``. Records are kept, too.
        out: folder for the judge, for ``make_judge("classifier", model=out)``; the same call continues a run.
        model: the base: an encoder or a decoder, by a folder or a Hub id.
        settings: of ``judge_training.settings.TrainJudgeSettings``, such as ``lora_r``, ``weights`` or ``eval_file``.

    Returns:
        What was done, with the figures of the judge; None where ``out`` already holds the finished run.
    """
    from maskdpo.annotate.sentences import by_classifier
    from maskdpo.judge_training.run import train_judge as train
    from maskdpo.judge_training.settings import TrainJudgeSettings

    if "push" in settings:
        raise UserError("`push` is for the command `maskdpo train-judge`")
    files, asked = _several(labelled), _several(prompts)
    kept = {name: Path(f"{out}.{name}.jsonl") for name in ("labelled", "prompts")}
    given = {"labelled": files or kept["labelled"], "prompts": asked or kept["prompts"], "out": out, "model": model}
    loaded = load_settings(TrainJudgeSettings, given | settings)
    if not files:
        kept_as_file(labelled, Annotation, kept["labelled"])  # type: ignore[type-var]
    if not asked:
        kept_as_file(prompts, Prompt, kept["prompts"])  # type: ignore[type-var]
    return train(loaded, by_classifier)


@contextmanager
def _files_of(given: Any, kind: type[R], *, name: str) -> Iterator[list[Path]]:
    """The paths that are given, or a file that holds the records meanwhile."""
    if files := _several(given):
        yield files
        return
    with as_file(given, kind, name=name) as file:
        yield [file]


def _several(given: Any) -> list[Path]:
    """The paths that are given; none where records are."""
    if isinstance(given, str | Path):
        return [Path(given)]
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given):
        return [Path(one) for one in given]
    return []


def encode_pair(
    pair: Pair, tokenizer: "PreTrainedTokenizerBase", *, method: str = "mask-dpo", **settings: Any
) -> "EncodedPair | Drop":
    """The token ids and the exact weights of both sides of a pair, for a trainer of one's own.

    Args:
        tokenizer: a fast tokenizer; for conversational pairs with a chat template.
        method: which sentences train (``train.data.weights.METHODS``), or a mask of your own.
        settings: of ``train.config.EncodeSettings``: ``eos``, ``max_length``, ``reasoning``, ``template_options``.

    Returns:
        ``prompt_ids`` int64 [P], and for ``chosen`` and ``rejected`` ``ids`` int64 [T] and ``weights`` float32 [T]:
        the w_t of Mask-DPO (arXiv 2503.02846, eq. 4), 0 for tokens that do not train. Or why there are none, as a
        member of ``Drop``: a mask is never guessed.
    """
    from maskdpo.train.config import EncodeSettings

    given = {"model": tokenizer.name_or_path, "method": method, **settings}
    template = str(tokenizer.chat_template)
    return _encoder(tokenizer, template, load_settings(EncodeSettings, given).model_dump_json()).encode(pair)


@lru_cache(maxsize=8)
def _encoder(tokenizer: "PreTrainedTokenizerBase", template: str, settings: str) -> "Encoder":
    """Kept, as an encoder learns once what a chat template (``template``) writes around answers."""
    from maskdpo.train.config import EncodeSettings
    from maskdpo.train.data.read import encoder_for

    return encoder_for(EncodeSettings.model_validate_json(settings), tokenizer)


def evaluate_annotations(
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    prompts: File | Iterable[Prompt] | None = None,
    gold: File | Iterable[Annotation] | None = None,
    gold_drawn: str = "recorded",
    compare: File | Sequence[File] | Iterable[Annotation] | None = None,
    compare_gold: File | Iterable[Annotation] | None = None,
    length_penalty: int | None = None,
    limit: int | None = None,
) -> "Evaluation":
    """Count right, wrong, no-fact and not-judged sentences per answer: ``maskdpo evaluate``.

    Args:
        annotations: a path, several paths, or records.
        prompts: for the topics, over which the intervals are.
        gold: annotations with human labels, with which the labels are compared.
        gold_drawn: how they were drawn, for prediction-powered estimates: ``recorded``, with the probability in
            ``inclusion`` of each sentence, or ``random``, all with the same probability.
        compare: annotations of another model (after), to set beside these (before): a path, or records; or several
            paths, to compare more models in one table.
        compare_gold: human labels of ``compare``; without it those of ``gold``, by id and text.
        limit: read only so many annotations, the first ones.
        length_penalty: gamma of FActScore's precision (arXiv 2305.14251); None leaves the figure out.

    Returns:
        ``tables()`` to print; ``summary``, ``comparison``, ``agreement`` and ``powered`` have the figures as numbers.
    """
    from maskdpo.evaluate.evaluation import evaluate_files
    from maskdpo.evaluate.settings import EvaluateSettings

    with (
        _files_of(annotations, Annotation, name="annotations") as labelled,
        nullcontext(()) if compare is None else _files_of(compare, Annotation, name="compare") as after,
        as_files(
            prompts=(prompts, Prompt),
            gold=(gold, Annotation),
            compare_gold=(compare_gold, Annotation),
        ) as files,
    ):
        given: dict[str, Any] = {"gold_drawn": gold_drawn, "length_penalty": length_penalty, "limit": limit}
        given |= {"annotations": labelled, "compare": after, **files}
        return evaluate_files(load_settings(EvaluateSettings, given))


def gold_of_decisions(decisions: File | Sequence[File] | Iterable[Decision]) -> list[Annotation]:
    """Annotations without a judge, of what most people say or an adjudication settled: ``maskdpo gold``.

    Args:
        decisions: a path, several paths, or records, the older before the newer.
    """
    from maskdpo.people.gold import gold_records
    from maskdpo.people.sentences import decided

    return gold_records(decided(_decisions(decisions)))


def agreement_of_people(
    decisions: File | Sequence[File] | Iterable[Decision], *, all_sentences: bool = False
) -> "AgreeResult":
    """How far people agree with each other and with the judge: ``maskdpo agree``.

    Args:
        decisions: a path, several paths, or records, the older before the newer.
        all_sentences: count sentences that were not drawn at random too.
    """
    from maskdpo.people.agree import agreement_of

    return agreement_of(_decisions(decisions), all_sentences=all_sentences)


def _decisions(given: Any) -> list[Decision]:
    from maskdpo.verdicts.people import read_decisions

    return read_decisions(_several(given)) if _several(given) else list(checked(given, Decision))


def write_report(
    records: File | Iterable[Annotation] | Iterable[Pair],
    out: File,
    *,
    prompts: File | Iterable[Prompt] | None = None,
    gold: File | Iterable[Annotation] | None = None,
    gold_drawn: str = "recorded",
    compare: File | Sequence[File] | Iterable[Annotation] | None = None,
    model: str | None = None,
    method: str = "mask-dpo",
    title: str | None = None,
) -> "PageStats | TrainingStats":
    """Write one self-contained HTML page: ``maskdpo report``.

    Args:
        records: annotations or pairs, or the path of a training: its folder, or its metrics.jsonl.
        gold_drawn: as for ``evaluate_annotations``.
        compare: annotations of another model, or another training; or several paths of annotations, of which tables
            and a plot show all, while the answers of the last stand beside these.
        model: for pairs: mark the very tokens that train with the tokenizer of this model.
    """
    from maskdpo.evaluate.report import write_report as write
    from maskdpo.evaluate.settings import ReportSettings

    tokens = None
    if model is not None:
        from maskdpo.train.data.trained_tokens import trained_tokens

        tokens = trained_tokens(model, method)
    with (
        nullcontext(()) if compare is None else _files_of(compare, Annotation, name="compare") as after,
        as_files(
            annotations=(records, Annotation, Pair),
            prompts=(prompts, Prompt),
            gold=(gold, Annotation),
        ) as files,
    ):
        given = {"out": out, "gold_drawn": gold_drawn, "title": title, "compare": after}
        return write(load_settings(ReportSettings, {**files, **given}), tokens)


def push_dataset(
    prompts: File | Iterable[Prompt],
    annotations: File | Iterable[Annotation],
    pairs: File | Iterable[Pair],
    *,
    repo: str,
    license: str,
    **settings: Any,
) -> "PushResult":
    """Publish labelled data as a dataset on the Hugging Face Hub, with a card: ``maskdpo push``.

    Args:
        repo: ``user/name``, or ``name`` for your own account.
        license: by its id on the Hub, such as ``cc-by-4.0``.
        settings: ``agreement``, ``decisions`` (files) and ``names``, ``private`` and ``overwrite_schema``.
    """
    from maskdpo.dataset.hub.push import People, push
    from maskdpo.dataset.hub.settings import PushSettings
    from maskdpo.people.publish import published

    if "dry_run" in settings:
        raise UserError("`dry_run` is for the command `maskdpo push`")
    with as_files(prompts=(prompts, Prompt), annotations=(annotations, Annotation), pairs=(pairs, Pair)) as files:
        loaded = load_settings(PushSettings, {**files, "repo": repo, "license": license, **settings})
        return push(loaded, People(*published(loaded.decisions, names=loaded.names)))


def _records(given: Any, kind: type[R]) -> Iterable[R]:
    files = _several(given)
    return io.read_records(files, kind) if files else checked(given, kind)


def _in_shard(records: Iterable[R], shard: "Shard | None", prompt_of: Callable[[R], str]) -> Iterator[R]:
    return (record for record in records if shard is None or shard.holds(prompt_of(record)))


def _no_dry_run(wanted: bool, command: str) -> None:
    if wanted:
        raise UserError(f"`dry_run` is for the command `maskdpo {command}`")
