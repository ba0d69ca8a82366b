"""What answers beside the models and the vote of a run, students and exported files, with what each is worth and costs: `priced.json`.

It is what the report draws; an entry is of one ensemble's file, and counts as long as that is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter

from analysis.evaluation.fitted_ensemble import FILE, ensemble_hash
from search_spaces.errors import UserError
from trainables.record import DAMAGE, list_folders, read_json, read_run, write_json
from trainables.storage import Folder

PRICED = "priced.json"


@dataclass(frozen=True)
class Entry:
    """One that answers."""

    name: str
    sort: Literal["student", "exported file"]
    score: float  # on the hold-out, by the run's metric
    interval: tuple[float, float]  # 95 %
    ms: float  # an image that comes alone, on the device that is named
    megabytes: float
    device: str
    of: str = ""  # sha256 of the ensemble's file that it is of; empty: of a trial, whose weights do not change


ENTRIES = TypeAdapter(tuple[Entry, ...])


def note_priced(run: Folder, entries: Sequence[Entry]) -> None:
    """Write entries down, in place of those of the same names."""
    named = {entry.name for entry in entries}
    kept = [entry for entry in read_priced(run) if entry.name not in named]
    write_json(run / PRICED, {"entries": [asdict(entry) for entry in (*kept, *entries)]})


def read_priced(run: Folder) -> tuple[Entry, ...]:
    """What is noted of a run; nothing where there is no file, or it is damaged."""
    try:
        return ENTRIES.validate_python(read_json(run / PRICED, "priced")["entries"]) if (run / PRICED).is_file() else ()
    except DAMAGE:
        return ()


def priced_of(run: Folder) -> Iterator[Entry]:
    """What counts today of a run and of the students of its ensemble, whose runs lie beside it."""
    for place in (run, *students_of(run)):
        file = place / "ensemble" / FILE
        now = ensemble_hash(file.parent) if file.is_file() else ""
        yield from (entry for entry in read_priced(place) if entry.of in ("", now))


def students_of(run: Folder) -> Iterator[Folder]:
    """The runs beside a run whose trials learned what its ensemble answers."""
    for folder in list_folders(run.parent):
        try:
            if (folder / "run.json").is_file() and read_run(folder).student_of.startswith(f"{run.resolve().name}/"):
                yield folder
        except (UserError, *DAMAGE):
            continue
