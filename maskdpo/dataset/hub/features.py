"""The columns as the package ``datasets`` describes them, so that it infers no types."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo import extras
from maskdpo.dataset.hub.data import Contents
from maskdpo.io import CONFIGS
from maskdpo.io.parquet import schema_of

if TYPE_CHECKING:
    import datasets


def require_datasets() -> None:
    for package in ("datasets", "huggingface_hub"):
        extras.require(package, install="'maskdpo[hub]'", purpose="maskdpo push")


def features_of(config: str, *, chat: bool) -> "datasets.Features":
    """The columns of a config. ``chat``: prompts and answers are messages, else plain strings."""
    import datasets

    return datasets.Features.from_arrow_schema(schema_of(CONFIGS[config], chat=chat))


def dataset_info(contents: Contents, folder: Path) -> list[dict[str, Any]]:
    """The ``dataset_info`` of the card: columns, rows and bytes per config. ``datasets`` checks the rows on loading."""
    import datasets
    from datasets.info import DatasetInfosDict
    from datasets.splits import SplitDict, SplitInfo
    from huggingface_hub import DatasetCardData

    infos = {}
    for config, part in contents.parts.items():
        splits = {split: SplitInfo(split, part.bytes[split], rows) for split, rows in part.rows.items()}
        infos[config] = datasets.DatasetInfo(
            config_name=config,
            features=features_of(config, chat=part.chat),
            splits=SplitDict(splits),
            download_size=sum(file.stat().st_size for file in (folder / config).iterdir()),
            dataset_size=sum(part.bytes.values()),
        )
    card = DatasetCardData()
    DatasetInfosDict(infos).to_dataset_card_data(card)
    found: list[dict[str, Any]] = card.get("dataset_info")
    return found


def configs(contents: Contents) -> list[dict[str, Any]]:
    """The ``configs`` of the card: the files of every split. The first config loads where none is named."""
    return [
        {
            "config_name": config,
            **({"default": True} if config == next(iter(CONFIGS)) else {}),
            "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in part.rows],
        }
        for config, part in contents.parts.items()
    ]


def differences(old: Any, new: Mapping[str, Any]) -> list[str]:
    """The differences between the columns of an Arrow schema and features, one short text each."""
    import datasets

    before = datasets.Features.from_arrow_schema(old)
    return [
        f"{name} {'is new' if name not in before else 'is gone' if name not in new else 'has another type'}"
        for name in sorted({*before, *new})
        if before.get(name) != new.get(name)
    ]
