"""Measurements. A package, because one of that name is among the installed ones (pysbd brings it)."""
