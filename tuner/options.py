"""What the command line of `tuner.run` asks for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """`--trials 40`, or `--trials +20`: as many more."""

    number: int
    more: bool = False


@dataclass(frozen=True)
class Options:
    """The command line."""

    space: str | None = None
    resume: str | None = None  # a run to go on with
    data: Path | None = None
    storage: str = "runs"  # folder or address of all runs
    trials: Wanted | None = None
    time_budget: float | None = None  # seconds
    name: str | None = None
    seed: int | None = None
    early_stopping: bool | None = None  # this and the next three override the section run of the space
    keep_running: float | None = None
    keep: int | None = None
    retries: int | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None
    address: str | None = None
    changes: tuple[str, ...] = ()
    dashboard: bool = True
    dry_run: bool = False
    allow_bad_photos: bool = False
