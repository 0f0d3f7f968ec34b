"""Write the tables of options in docs/ from the settings models: between <!-- options: COMMAND --> and <!-- end -->.

python scripts/option_tables.py            write them
python scripts/option_tables.py --check    say which files would change, and exit with 1 if any would
"""

import re
import sys
from pathlib import Path

from maskdpo.commands import COMMANDS
from maskdpo.settings import SettingInfo, settings_model, settings_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(<!-- options: (?P<command>[\w-]+)(?P<backend>, with backend)? -->\n).*?(<!-- end -->)", re.DOTALL)


def table(command: str, with_backend: bool = False) -> str:
    """Markdown: a row per option, in the order of --help. The options of backends stand on a page of their own."""
    rows = []
    for setting in settings_of(settings_model(COMMANDS[command])):
        if (setting.option.panel == "Backend") == with_backend:
            rows.append(f"| {_spelled(setting)} | {_default(setting)} | {setting.help.replace('|', '&#124;')} |")
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _spelled(setting: SettingInfo) -> str:
    if setting.option.argument:
        return f"`{setting.option.metavar or setting.name.upper()}`"
    return ", ".join(f"`{flag}`" for flag in setting.flags)


def _default(setting: SettingInfo) -> str:
    if setting.required:
        return "required"
    return (
        ""
        if setting.default is None or setting.default in ((), {}) or setting.default is False
        else f"`{str(setting.default).removesuffix('.0')}`"
    )


def renewed(text: str) -> str:
    return BLOCK.sub(lambda found: found[1] + table(found["command"], bool(found["backend"])) + found[4], text)


def main() -> int:
    changed = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if renewed(text) != text:
            changed.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(renewed(text), encoding="utf-8")
    print(f"{'out of date' if '--check' in sys.argv else 'written'}: {', '.join(changed) or 'none'}")
    return 1 if changed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
