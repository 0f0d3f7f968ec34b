"""Sentences counted by the language of their answers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from maskdpo.schemas import Annotation, Counts
from maskdpo.text.language import UNKNOWN, detect_language


@dataclass
class LanguageCounts:
    """Answers, and sentences in four groups, by language tag."""

    named: Mapping[str, str] = field(default_factory=dict)
    """The languages that prompts name, by the id of the prompt. Other answers have the language that is detected."""
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, annotation: Annotation, times: int = 1) -> None:
        """Count an annotation; ``times`` is -1 where another record replaces this one."""
        language = self.named.get(annotation.prompt_id) or detect_language(annotation.response)
        counted = self.counts.setdefault(language, Counter())
        counted["answers"] += times
        for group, sentences in annotation.counts._asdict().items():
            counted[group] += times * sentences

    def values(self) -> dict[str, dict[str, int]]:
        """As JSON values, the most frequent language first."""
        found = {language: counted for language, counted in self.counts.items() if counted["answers"]}
        return {
            language: {name: counted[name] for name in ("answers", *Counts._fields)}
            for language, counted in sorted(found.items(), key=lambda item: (-item[1]["answers"], item[0]))
        }

    def of_several(self) -> dict[str, dict[str, int]]:
        """``values`` where answers are in two known languages or more, else nothing."""
        values = self.values()
        return values if len(values.keys() - {UNKNOWN}) > 1 else {}
