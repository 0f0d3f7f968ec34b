"""Formats of other tools: one module per format, to or from records; ``transfer`` reads and writes the files."""

NOT_JUDGED = "not_judged"
"""The name of a sentence without a verdict, where a format needs one."""
