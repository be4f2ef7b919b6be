"""Which pieces of text are the tokens of the small language model?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from modscope.data.files import read_checked

BEGIN = 1  # the token that starts a text


def token_pieces(folder: str | Path | None = None) -> tuple[str, ...]:
    """The 512 pieces of aidreams260K's vocabulary, by token number.

    Raises:
        DataError: If the file is missing or damaged.
    """
    vocabulary = json.loads(read_checked("networks/aidreams260K_vocab.json", folder))
    return tuple(piece for piece, _ in vocabulary["pieces_and_scores"])


def joined(tokens: Iterable[int], pieces: tuple[str, ...]) -> str:
    """The text of a row of tokens, without the marks that begin and end a text."""
    return "".join(pieces[token] for token in tokens if token > BEGIN + 1)
