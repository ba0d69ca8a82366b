"""When trials end early: pruners for bad ones, by name, and a soft stop for all of them."""

from trainables.registry import Entry, Registry
from tuner.stoppers.asha import AshaSettings, asha, halving_rungs
from tuner.stoppers.history import GraceSettings, Stopper
from tuner.stoppers.hyperband import hyperband
from tuner.stoppers.median import MedianSettings, median


def none(settings: AshaSettings, epochs: int) -> Stopper:
    """Stops no trial; how well early scores predict the final ones is measured all the same."""
    return Stopper("none", "Nothing", epochs, halving_rungs(settings.grace, settings.reduction, epochs), lambda history, trial: None)


# What is built gets the settings and the run's maximum epochs.
STOPPERS: Registry[Entry[GraceSettings]] = Registry(
    {
        "asha": Entry(AshaSettings, asha),
        "median": Entry(MedianSettings, median),
        "hyperband": Entry(AshaSettings, hyperband),
        "none": Entry(AshaSettings, none),
    },
    Entry,
    GraceSettings,
)
DEFAULT = "asha"
