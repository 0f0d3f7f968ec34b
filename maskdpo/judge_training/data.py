"""All sentences of a run, split and augmented, and what the judge tells apart."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.errors import UserError
from maskdpo.judge_training.augment import augmented
from maskdpo.judge_training.base import load_tokenizer_of
from maskdpo.judge_training.examples import FileCounts, LabelledSentence, read_examples, read_gold, split_topics
from maskdpo.judge_training.settings import TrainJudgeConfig, TrainJudgeSettings
from maskdpo.judge_training.spec import judge_already, kind_of, new_spec
from maskdpo.judge_training.targets import Classes, choose_classes, speaks_of
from maskdpo.models import load_config
from maskdpo.verdicts.decision import read_calibration


@dataclass(frozen=True)
class Data:
    """What is trained on, before tokens."""

    train: list[LabelledSentence]
    held_out: list[LabelledSentence]
    gold: list[LabelledSentence]
    files: list[FileCounts]
    spec: ClassifierSpec
    classes: Classes
    fresh: bool
    """Whether the head is new; else the base is a judge already."""
    tokenizer: PreTrainedTokenizerBase

    @property
    def gold_seen(self) -> set[str]:
        """Topics of the gold sentences that the judge depends on: it is trained on them, or they choose its weights."""
        return {example.topic for example in self.gold} & {example.topic for example in self.train + self.held_out}


def read_data(settings: TrainJudgeSettings, config: TrainJudgeConfig) -> Data:
    """Read all files, split them by topics, and choose the classes.

    Raises:
        UserError: a file is not valid, or the sentences teach no judge.
    """
    calibration = read_calibration(settings.calibration) if settings.calibration else None
    examples, files = read_examples(
        settings.labelled, settings.prompts, config.weights, soft=config.soft, calibration=calibration
    )
    gold = []
    if settings.eval_file:
        asked = [*settings.prompts, *([settings.eval_prompts] if settings.eval_prompts else [])]
        gold = read_gold(settings.eval_file, [settings.eval_prompts] if settings.eval_prompts else asked)
    train, held_out = split_topics(examples, config.heldout, config.seed, config.heldout_most)
    if config.augment:
        train += augmented(train, config.augment, config.seed)
    tokenizer = load_tokenizer_of(config)
    spec = judge_already(config.model)
    fresh = spec is None
    if spec is None:
        kind = kind_of(config.model, load_config(config.model))
        classes = choose_classes(config.classes, train, soft=config.soft)
        spec = new_spec(kind, classes, tokenizer, config)
    else:
        if config.classes != "auto":
            raise UserError(f"{config.model}: is a judge already and keeps its labels; leave `classes` at auto")
        classes = tuple(dict.fromkeys(each.label for each in spec.labels))
        choose_classes("auto", [e for e in train if speaks_of(e.label, classes)], soft=config.soft)
    return Data(train, held_out, gold, files, spec, classes, fresh, tokenizer)
