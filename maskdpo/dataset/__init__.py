"""Preference pairs out of labelled answers."""
