"""What ``evaluate`` has found, as tables, as JSON and as the figures of a plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskdpo.evaluate import tables, values
from maskdpo.evaluate.agreement import Agreement
from maskdpo.evaluate.factuality import MAIN_FIGURES, Comparison, Summary
from maskdpo.evaluate.prediction_powered import Powered, PoweredComparison
from maskdpo.html.render import SummaryTable
from maskdpo.io import Input, files_of
from maskdpo.schemas.effects import SideEffects
from maskdpo.text.language_counts import LanguageCounts
from maskdpo.verdicts.estimate import Estimate


@dataclass(frozen=True)
class Evaluation:
    """The figures of ``maskdpo evaluate``: a ``summary`` of one file, or its ``comparisons`` with others."""

    annotations: tuple[Path, ...]
    gold: Path | None
    summary: Summary | None
    comparisons: Mapping[Path, Comparison]
    """Each compared file (after) beside these annotations (before)."""
    between: Mapping[Path, Comparison]
    """Of several compared files, each further one (after) beside the first (before), if they share topics."""
    agreement: Agreement | None
    languages: tuple[LanguageCounts, ...]
    """The counts of these annotations, and of the first compared file, by the language of answers."""
    powered: Powered | PoweredComparison | str | None
    """Prediction-powered estimates, or why there are none although there is gold."""
    side_effects: Mapping[Path, SideEffects]
    """What trainings have changed in other answers, by the file that says so."""
    labels: tuple[str, ...]
    """What tables and plots call these annotations and each compared file; empty: they have the names of files."""

    @property
    def compared(self) -> Path | None:
        """The first compared file."""
        return next(iter(self.comparisons), None)

    @property
    def comparison(self) -> Comparison | None:
        """That with the first compared file."""
        return next(iter(self.comparisons.values()), None)

    def tables(self) -> list[SummaryTable]:
        made, name, labels = [], named(self.annotations), self.labels or tables.BEFORE_AFTER
        refused = [self.powered] if isinstance(self.powered, str) else []
        if self.summary:
            made.append(tables.of_summary(name, self.summary, refused))
        if len(self.comparisons) > 1:
            made += self._tables_of_several()
        elif self.comparison and self.compared:
            made.append(tables.of_comparison(f"{name} -> {self.compared.name}", self.comparison, refused, labels))
        names = [name, *([self.compared.name] if self.compared else [])]
        made += [tables.of_languages(*each) for each in zip(names, self.languages, strict=True) if each[1].of_several()]
        if self.gold and self.summary and isinstance(self.powered, Powered):
            made.append(tables.of_powered(self.powered, self.summary, self.gold.name))
        if self.gold and isinstance(self.powered, PoweredComparison):
            made.append(tables.of_powered_comparison(self.powered, self.gold.name, labels))
        if self.gold and self.agreement:
            made += tables.of_agreement(f"{name} against {self.gold.name}", self.agreement)
        return [*made, *(tables.of_side_effects(file.name, found) for file, found in self.side_effects.items())]

    def write_json(self, out: Path) -> None:
        """Write the figures as JSON: unrounded; null where a figure is undefined or was not asked for."""
        found = {
            "summary": values.of_summary(self.summary) if self.summary else None,
            "comparison": values.of_comparison(self.comparison) if self.comparison else None,
            "comparisons": {str(file): values.of_comparison(found) for file, found in self.comparisons.items()},
            "between": {str(file): values.of_comparison(found) for file, found in self.between.items()},
            "languages": [counted.values() for counted in self.languages],
            "agreement": values.of_agreement(self.agreement) if self.agreement else None,
            "side_effects": {str(file): one.model_dump(mode="json") for file, one in self.side_effects.items()},
            "prediction_powered": values.of_powered(self.powered) if self.powered else None,
        }
        values.write(out, self.annotations, {"compare": self.compared, "gold": self.gold}, found)

    def main_figures(self) -> dict[str, dict[str, Estimate]]:
        """What a plot shows: ``MAIN_FIGURES`` of these annotations and of each compared file, by their names."""
        found = list(self.comparisons.values())
        summaries = [one.before for one in found[:1]] + [one.after for one in found]
        return {
            name: {key: summary.figures[key] for key in MAIN_FIGURES}
            for name, summary in zip(self._names(), summaries, strict=True)
        }

    def _names(self) -> list[str]:
        """What these annotations and each compared file are called."""
        files = [self.annotations[0], *self.comparisons]
        names = list(self.labels) or [file.stem.removesuffix(".annotations") for file in files]
        # those of several folders may have one name
        return names if len(set(names)) == len(names) else [str(file) for file in files]

    def _tables_of_several(self) -> list[SummaryTable]:
        own, *names = self._names()
        called = dict(zip(self.comparisons, names, strict=True))
        first, *others = called
        apart = [
            f"{called[file]} is not set beside {called[first]}: they share no topic"
            for file in others
            if file not in self.between
        ]
        labels = [own if self.labels else "before", *names]
        if not self.between:
            return [tables.of_comparisons(named(self.annotations), self.comparisons, labels, apart)]
        return [
            tables.of_comparisons(named(self.annotations), self.comparisons, labels),
            tables.of_comparisons(first.name, self.between, [called[file] for file in (first, *self.between)], apart),
        ]


def named(given: Input) -> str:
    """The files of an input, in titles."""
    return " + ".join(file.name for file in files_of(given))
