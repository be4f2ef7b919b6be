"""What did the analysis of one network find?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modscope.alignment import Alignment
from modscope.analysis.verdicts import Verdict
from modscope.errors import RecordError
from modscope.graph.unit_graph import UnitGraph
from modscope.lesions.importance import Importance
from modscope.masks.controls import MaskControls
from modscope.masks.mask import MaskSet
from modscope.masks.specialization import Specialization
from modscope.partition.bands import Sweep
from modscope.partition.clusterability import Clusterability
from modscope.partition.partition import Partition
from modscope.records import Record, installed_versions, plain
from modscope.wiring.wiring import Wiring

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

RECORD_FILE, PARTITION_FILE, MASK_FOLDER = "record.json", "partition.json", "masks"
VERDICT_KEYS = ("key", "state", "sentence", "reason")


@dataclass(frozen=True, eq=False)
class Results:
    """The results behind a run, each of which plots itself and becomes a table. None: not measured."""

    wiring: Wiring
    graph: UnitGraph
    clusterability: Clusterability
    controls: tuple[MaskControls, ...]
    specialization: Specialization | None
    importance: Importance | None
    alignment: Alignment | None
    sweep: Sweep | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One network, analysed: four verdicts, and everything that they rest on.

    Args:
        name: What the network is called.
        verdicts: The four answers: function, structure, importance, bridge.
        content: All numbers as plain JSON values, as the report reads them.
        partition: The clusters that were tested.
        mask_set: The masks of every task; None without tasks.
        results: The results as objects; None for a run that was read from a folder.
        seconds: How long each stage took. Not part of the record.
    """

    name: str
    verdicts: tuple[Verdict, ...]
    content: dict[str, Any]
    partition: Partition
    mask_set: MaskSet | None = None
    results: Results | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> Record:
        """All numbers of the run, with versions; the same run gives the same bytes."""
        return Record("analysis", self.name, self.content, versions=installed_versions())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `record.json`, `partition.json` and the masks into a folder, which is made if it is missing.

        Raises:
            RecordError: If the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"cannot write to '{folder}': {error.strerror or error}") from error
        labels = {"labels": plain(self.partition.labels), "notes": list(self.partition.notes)}
        Record("partition", self.name, labels).save(folder / PARTITION_FILE)
        if self.mask_set is not None:
            self.mask_set.save_pretrained(folder / MASK_FOLDER)
        self.record().save(folder / RECORD_FILE)  # the last one: where it stands, the others do too
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in a folder that `save` wrote.

        Raises:
            RecordError: If a file is missing, damaged, of a newer version, or of another kind.
        """
        folder = Path(folder)
        record = _of_kind(Record.load(folder / RECORD_FILE), "analysis", folder / RECORD_FILE)
        stored = _of_kind(Record.load(folder / PARTITION_FILE), "partition", folder / PARTITION_FILE)
        has_masks = (folder / MASK_FOLDER).is_dir()
        try:
            lines = [{key: line[key] for key in VERDICT_KEYS} for line in record.content["verdict"]]
            verdicts = tuple(Verdict(**line) for line in lines)
            labels = np.array(stored.content["labels"], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{folder} does not hold a run of this version: {error}") from error
        return cls(
            record.title,
            verdicts,
            record.content,
            Partition(labels, tuple(stored.content.get("notes", ()))),
            MaskSet.from_pretrained(folder / MASK_FOLDER) if has_masks else None,
        )

    def with_content(self, **parts: Any) -> Run:
        """The same run, with some parts of its content replaced: what only the caller knows, as the data's name."""
        return replace(self, content={**self.content, **plain(parts)})

    def to_frame(self) -> pl.DataFrame:
        """One row per question: state, sentence, reason, effect, p."""
        import polars as pl

        rows = []
        for line in self.content["verdict"]:
            test = line["test"] or {}
            numbers = {name: test.get(name) for name in ("effect", "z", "p", "p_floor")}
            rows.append({**{key: line[key] for key in VERDICT_KEYS}, **numbers})
        return pl.DataFrame(rows, infer_schema_length=None)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The n-cut of the clusters against its null models.

        Raises:
            RecordError: If the run was read from a folder; `write_report` draws it.
        """
        if self.results is None:
            raise RecordError("a run that was read from a folder holds no results to plot; use write_report(run, path)")
        return self.results.clusterability.plot(ax)

    def __repr__(self) -> str:
        return "\n".join([f"Run({self.name})", *(f"  {verdict}" for verdict in self.verdicts)])

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><th>{line.key}</th><td>{line.state}</td><td>{escape(line.sentence)} {escape(line.reason)}</td>"
            for line in self.verdicts
        )
        return f"<p><b>{escape(self.name)}</b></p><table>{rows}</table>"


def _of_kind(record: Record, kind: str, path: Path) -> Record:
    if record.kind != kind:
        raise RecordError(f"{path} holds a record of kind '{record.kind}', not '{kind}'")
    return record
