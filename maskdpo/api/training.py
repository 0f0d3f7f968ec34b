"""Models out of pairs, and judges out of labels: ``train`` and ``train-judge``."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo.api.given import paths_given
from maskdpo.errors import UserError
from maskdpo.io.memory import File, as_files, kept_as_file
from maskdpo.schemas import Annotation, Pair, Prompt, Response
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from maskdpo.judge_training.result import JudgeResult
    from maskdpo.schemas.effects import SideEffects
    from maskdpo.train.data.encode import Encoder
    from maskdpo.train.data.encoded_pair import Drop, EncodedPair
    from maskdpo.train.run.train import TrainResult


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


def measure_side_effects(
    before: File | Iterable[Response],
    after: File | Iterable[Response],
    *,
    out: File,
    prompts: File | Iterable[Prompt] | None = None,
    **settings: Any,
) -> "SideEffects":
    """What a training has changed in answers to general prompts: ``maskdpo side-effects``.

    Args:
        before: answers of the model before the training, a path or records.
        after: answers of the trained model to the same prompts.
        out: the figures, as JSON, for ``evaluate_annotations`` and ``write_report``.
        prompts: those of both; None: ``builtin:general``, which ``sample_responses`` takes as a path, too.
        settings: of ``train.effects.settings.SideEffectsSettings``, such as ``model`` or ``device``.

    Returns:
        The figures before and after, with their intervals and differences.
    """
    from maskdpo.train.effects.measure import side_effects
    from maskdpo.train.effects.settings import SideEffectsSettings

    with as_files(before=(before, Response), after=(after, Response), prompts=(prompts, Prompt)) as files:
        return side_effects(load_settings(SideEffectsSettings, {**files, "out": out, **settings}))


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
    files, asked = paths_given(labelled), paths_given(prompts)
    kept = {name: Path(f"{out}.{name}.jsonl") for name in ("labelled", "prompts")}
    given = {"labelled": files or kept["labelled"], "prompts": asked or kept["prompts"], "out": out, "model": model}
    loaded = load_settings(TrainJudgeSettings, given | settings)
    if not files:
        kept_as_file(labelled, Annotation, kept["labelled"])  # type: ignore[type-var]
    if not asked:
        kept_as_file(prompts, Prompt, kept["prompts"])  # type: ignore[type-var]
    return train(loaded, by_classifier)


def encode_pair(
    pair: Pair, tokenizer: "PreTrainedTokenizerBase", *, method: str = "mask-dpo", **settings: Any
) -> "EncodedPair | Drop":
    """The token ids and the exact weights of both sides of a pair, for a trainer of one's own.

    Args:
        tokenizer: a fast tokenizer; for conversational pairs with a chat template.
        method: which sentences train (``train.data.weights.METHODS``), or a mask of your own.
        settings: of ``train.data.settings.EncodeSettings``: ``eos``, ``max_length``, ``reasoning`` and
            ``template_options``.

    Returns:
        ``prompt_ids`` int64 [P], and for ``chosen`` and ``rejected`` ``ids`` int64 [T] and ``weights`` float32 [T]:
        the w_t of Mask-DPO (arXiv 2503.02846, eq. 4), 0 for tokens that do not train. Or why there are none, as a
        member of ``Drop``: a mask is never guessed.
    """
    from maskdpo.train.data.settings import EncodeSettings

    given = {"model": tokenizer.name_or_path, "method": method, **settings}
    template = str(tokenizer.chat_template)
    return _encoder(tokenizer, template, load_settings(EncodeSettings, given).model_dump_json()).encode(pair)


@lru_cache(maxsize=8)
def _encoder(tokenizer: "PreTrainedTokenizerBase", template: str, settings: str) -> "Encoder":
    """Kept, as an encoder learns once what a chat template (``template``) writes around answers."""
    from maskdpo.train.data.encode import encoder_for
    from maskdpo.train.data.settings import EncodeSettings

    return encoder_for(EncodeSettings.model_validate_json(settings), tokenizer)
