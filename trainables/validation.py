"""How sure a trial's validation score is."""

from trainables.config import TrialConfig
from trainables.data.labels import read_task
from trainables.data.photos import Photos
from trainables.data.splits import Split
from trainables.metrics import bootstrap_f1, interval, person_counts
from trainables.record import Predictions
from trainables.seeding import generator


def validation_interval(config: TrialConfig, predictions: Predictions, photos: Photos, split: Split) -> tuple[float, float]:
    """The person-bootstrap 95 % interval of the macro F1 of a trial's predictions on the validation photos, in their order."""
    task = read_task(config.task, photos.scheme)
    truth = task.scheme.joint(photos.labels[split.valid][:, photos.scheme.columns(task.scheme.names)])
    predicted = task.joint_probabilities(predictions.heads).argmax(axis=1)
    counts = person_counts(truth, predicted, photos.people[split.valid], task.scheme.classes)
    return interval(bootstrap_f1(counts, generator(config.seed, "bootstrap")))
