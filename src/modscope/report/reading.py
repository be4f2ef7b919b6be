"""Does a record hold what a page needs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from modscope.errors import RecordError, StudyError
from modscope.records import Json, Record

if TYPE_CHECKING:
    from modscope.report.content import Collection


@runtime_checkable
class HasRecord(Protocol):
    """What a run is to the report: something with a record."""

    def record(self) -> Record:
        """What was found, as data."""
        ...


Reportable: TypeAlias = "HasRecord | Sequence[HasRecord]"


def read(given: Reportable) -> tuple[Collection, dict[str, str]]:
    """The networks to show, and the versions of the packages that measured them.

    Raises:
        StudyError: If there is nothing to report.
        RecordError: If a record does not hold what a page needs.
    """
    several = list(given) if isinstance(given, Sequence) else [given]
    if not several:
        raise StudyError("there is nothing to report: give a run, a record, or several")
    records = [_record_of(item) for item in several]
    versions = {name: version for record in records for name, version in record.versions.items()}
    found = [_collection(record) for record in records]
    return (found[0] if len(found) == 1 else _side_by_side(found)), versions


def _record_of(item: HasRecord) -> Record:
    if not isinstance(item, HasRecord) or isinstance(item, type):
        raise StudyError(f"a report is written from runs or records, got {type(item).__name__}")
    record = item.record()
    if not isinstance(record, Record):
        raise StudyError(f"{type(item).__name__}.record() must give a Record, got {type(record).__name__}")
    if record.kind not in ("analysis", "collection"):
        raise RecordError(
            f"'{record.title}' is a record of kind '{record.kind}'; a page shows 'analysis' or 'collection'"
        )
    return record


def _collection(record: Record) -> Collection:
    from pydantic import ValidationError

    from modscope.report.content import Collection

    content: dict[str, Json] = record.content
    if record.kind == "analysis":
        content = {"title": record.title, "records": [content]}
    try:
        found = Collection.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3]]
        raise RecordError(
            f"record '{record.title}' does not hold what a page needs: {'; '.join(problems)} "
            f"({error.error_count()} in all; modscope/report/content describes every part)"
        ) from error
    return _with_unique_ids(found)


def _side_by_side(found: Sequence[Collection]) -> Collection:
    from modscope.report.content import Collection

    parts: dict[str, Any] = {
        name: [entry for item in found for entry in getattr(item, name)] for name in ("records", "warnings", "files")
    }
    title = ", ".join(item.title for item in found)
    return _with_unique_ids(Collection(title=title, texts=found[0].texts, **parts))


def _with_unique_ids(found: Collection) -> Collection:
    """The same networks; a second one of the same id gets a number, so that the page can tell them apart."""
    taken: set[str] = set()
    analyses = []
    for analysis in found.records:
        name, number = analysis.run.id, 1
        while name in taken:
            number += 1
            name = f"{analysis.run.id}-{number}"
        taken.add(name)
        analyses.append(analysis.model_copy(update={"run": analysis.run.model_copy(update={"id": name})}))
    return found.model_copy(update={"records": analyses})
