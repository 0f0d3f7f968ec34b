"""Labelled data as a dataset on the Hugging Face Hub: its files, its card, and the one commit that brings both."""
