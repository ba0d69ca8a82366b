"""What the probes before a search scored, as the run keeps it."""

from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from trainables.record import DAMAGE, read_json, write_json
from trainables.storage import Folder

TABLE = "probe.json"


@dataclass(frozen=True)
class ProbeRow:
    """One line of the table."""

    backbone: str
    weights: str
    view: str
    method: str  # linear, zero-shot, or k-NN
    trial: int | None  # the record with its weights; k-NN has none
    score: float
    interval: tuple[float, float]  # 95 %
    seconds: float  # with the features, where they were not in the cache
    milliseconds: float  # that the network takes for an image
    predicts: str = ""  # the targets that its score is over


@dataclass(frozen=True)
class ProbeTable:
    """What `probe.json` holds."""

    metric: str = ""
    guess: float = 0.0  # the score of the best answer that looks at no image
    rows: list[ProbeRow] = field(default_factory=list)  # best first
    neighbours: dict[int, ProbeRow] = field(default_factory=dict)  # those of k-NN, by the number of the linear probe of the same features
    left_out: list[str] = field(default_factory=list)  # probes for which there was no time


CONTENT = TypeAdapter(ProbeTable)


def read_probes(file: Folder) -> ProbeTable:
    """What the file holds. Raises: one of DAMAGE."""
    return CONTENT.validate_python(read_json(file, "probe"))


def probes_of(run: Folder) -> ProbeTable:
    """What the probes of a run have found so far; nothing where there are none, or the file is damaged."""
    with suppress(*DAMAGE):
        return read_probes(run / TABLE)
    return ProbeTable()


def write_probes(run: Folder, found: ProbeTable) -> None:
    write_json(run / TABLE, CONTENT.dump_python(found, mode="json"))
