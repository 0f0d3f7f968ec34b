"""Formats of other tools: one module per format, to or from records; ``exporting`` and ``importing`` write and read
the files."""

NOT_JUDGED = "not_judged"
"""The name of a sentence without a verdict, where a format needs one."""
