"""Rendezvous hashing: which of several servers or workers has read a document already, without a table of who has."""

import hashlib


def digest(document: str) -> bytes:
    """What stands for a document in ``weight``."""
    return hashlib.blake2b(document.encode(errors="replace"), digest_size=16).digest()


def weight(document: bytes, name: str) -> bytes:
    """The one of several names with the greatest weight gets the document; where a name goes or comes, only the
    documents of this name move.

    Args:
        document: its ``digest``.
    """
    return hashlib.blake2b(document + name.encode(), digest_size=8).digest()
