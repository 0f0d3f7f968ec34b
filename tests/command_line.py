"""The command line in this process."""

import sys

from maskdpo.cli import main


def exit_code(*words: object) -> int:
    """Run ``maskdpo WORDS`` as a user would; the code with which it ends."""
    before, sys.argv = sys.argv, ["maskdpo", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        assert end.code is None or isinstance(end.code, int)
        return end.code or 0
    finally:
        sys.argv = before
    return 0
