"""How is SCAN read: commands in words, actions to be taken?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from modscope.data.examples import Examples
from modscope.data.files import read_checked, unzipped
from modscope.errors import DataError

ScanSplit: TypeAlias = Literal["simple", "length", "addprim_jump", "addprim_turn_left"]
Pair: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]  # the words of a command, its actions
SPLITS: tuple[ScanSplit, ...] = ("simple", "length", "addprim_jump", "addprim_turn_left")
_LIMIT = 16 * 2**20


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers; `end` and `padding` are the two numbers after the last word."""

    words: tuple[str, ...]

    @property
    def end(self) -> int:
        """The number that closes a sequence."""
        return len(self.words)

    @property
    def padding(self) -> int:
        """The number that fills up shorter sequences."""
        return len(self.words) + 1

    def encoded(self, sequences: Sequence[Sequence[str]], length: int) -> Int[Tensor, "sequences {length}"]:
        """One row a sequence: its words, `end`, and `padding` up to `length`.

        Raises:
            DataError: If a word is not in the vocabulary, or a sequence and its end are longer than `length`.
        """
        number_of = {word: number for number, word in enumerate(self.words)}
        rows = torch.full((len(sequences), length), self.padding)
        for row, sequence in zip(rows, sequences, strict=True):
            unknown = [word for word in sequence if word not in number_of]
            if unknown or len(sequence) >= length:
                reason = f"'{unknown[0]}' is no word of the vocabulary" if unknown else f"more than {length - 1} words"
                raise DataError(f"cannot encode {' '.join(sequence)!r}: {reason}")
            numbers = [number_of[word] for word in sequence]
            row[: len(numbers) + 1] = torch.tensor([*numbers, self.end])
        return rows


@dataclass(frozen=True, eq=False)
class Scan:
    """One split of SCAN: inputs are commands (examples, 10), targets are actions (examples, 49), both encoded."""

    train: Examples
    test: Examples
    commands: Vocabulary
    actions: Vocabulary


def scan(split: ScanSplit, folder: str | Path | None = None) -> Scan:
    """The training and test commands of one split. All splits share the two vocabularies.

    Raises:
        DataError: If there is no such split, or a file is missing or damaged.

    Source: Lake & Baroni 2018.
    """
    if split not in SPLITS:
        raise DataError(f"SCAN has the splits {', '.join(SPLITS)}; got '{split}'")
    everything = _pairs("scan/tasks.txt.gz", folder)
    commands, actions = (_vocabulary(pair[side] for pair in everything) for side in (0, 1))
    lengths = [1 + max(len(pair[side]) for pair in everything) for side in (0, 1)]

    def examples(part: str) -> Examples:
        pairs = _pairs(f"scan/tasks_{part}_{split}.txt.gz", folder)
        return Examples(
            commands.encoded([command for command, _ in pairs], lengths[0]),
            actions.encoded([action for _, action in pairs], lengths[1]),
        )

    return Scan(examples("train"), examples("test"), commands, actions)


def read_scan(text: str, name: str) -> list[Pair]:
    """The commands and actions in lines "IN: run twice OUT: I_RUN I_RUN".

    Raises:
        DataError: If a line does not look like that.
    """
    pairs: list[Pair] = []
    for number, line in enumerate(text.splitlines(), start=1):
        command, separator, actions = line.removeprefix("IN: ").partition(" OUT: ")
        if not separator or not line.startswith("IN: "):
            raise DataError(f"line {number} of {name} should read 'IN: command OUT: actions', got {line[:80]!r}")
        pairs.append((tuple(command.split()), tuple(actions.split())))
    return pairs


def _pairs(file: str, folder: str | Path | None) -> list[Pair]:
    return read_scan(unzipped(read_checked(file, folder), file, limit=_LIMIT).decode(), file)


def _vocabulary(sequences: Iterable[Sequence[str]]) -> Vocabulary:
    counts = Counter(word for sequence in sequences for word in sequence)
    return Vocabulary(tuple(sorted(counts, key=lambda word: (-counts[word], word))))
