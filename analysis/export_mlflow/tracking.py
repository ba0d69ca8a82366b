"""What MLflow is told: a run, a child for each trial, and the ensemble as a model."""

import os

# MLflow reads these. It would report its use to its makers, look for a lock file in the folder it is called in, and print where each
# trial is on stdout, amid our answer.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_UV_AUTO_DETECT": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}

import hashlib
import json
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self, TypeVar

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema

from analysis.evaluation.fitted_ensemble import FILE, ensemble_hash, pack_ensemble, read_ensemble
from analysis.evaluation.novelty import read_novelty, write_novelty
from analysis.evaluation.search.exported import Epoch, ExportedRun, ExportedTrial, Plain
from trainables.record import RunError
from trainables.storage import Folder, local_file

KEY, TRIAL, CONTENT, EPOCHS, MODEL = (f"sweepvote.{name}" for name in ("key", "trial", "content", "epochs", "model"))
# MLflow shows a trial that a pruner stopped as it shows one that trained all epochs: stopping it was no mistake.
STATUS = {"failed": "FAILED", "interrupted": "KILLED"}
AT_ONCE = {"metrics": 1000, "params": 100}  # of one request
LONGEST = 6000  # characters of a parameter
FIRST_ANSWER = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8"}  # seconds; by default it tries for minutes
UNREACHED = re.compile("Max retries exceeded|Failed to establish|timed out", re.IGNORECASE)  # in what the client says
AGAIN = "Exported again, a run goes on where it was"
LOADER = "sweepvote.pyfunc"

Sent = Literal["new", "changed", "unchanged"]
Item = TypeVar("Item")


# It gives advice at every step, on what is meant as it is.
logging.getLogger("mlflow").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="mlflow")


@contextmanager
def in_plain_words(uri: str | None) -> Iterator[None]:
    """Turn what MLflow's client says into words. Raises: RunError."""
    try:
        yield
    except MlflowException as error:
        place = uri or mlflow.get_tracking_uri()
        first = str(error).strip().partition("\n")[0].rstrip(".")
        if UNREACHED.search(first):
            raise RunError(f"no MLflow server answers at {place}; start one (mlflow server), or correct --uri. {AGAIN}") from None
        raise RunError(f"MLflow at {place} refuses: {first}. {AGAIN}") from None


class Tracking:
    """A run of MLflow's, the children that it has, and what was sent to it."""

    def __init__(self, run: ExportedRun, client: MlflowClient, uri: str, experiment: str, there: Mapping[str, Run]):
        """
        Args:
            experiment: its id.
            there: what earlier exports of the run have left, by trial; the run itself under "".
        """
        self.run, self.uri, self.client, self.experiment, self.there = run, uri, client, experiment, there
        self.sent: dict[str, Sent] = {}
        self.model: str | None = None
        self.parent = there[""].info.run_id if "" in there else self._create("", run.name, time.time())

    @classmethod
    def of(cls, run: ExportedRun, uri: str | None, experiment: str) -> Self:
        """Ask what is there, and make what is missing around the trials. Raises: MlflowException."""
        if uri:
            mlflow.set_tracking_uri(uri)
        client = MlflowClient()
        with _environment(FIRST_ANSWER):
            found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        there, page = {}, None
        while page != "":
            answer = client.search_runs([number], f"tags.`{KEY}` = '{run.key}'", page_token=page)
            there |= {one.data.tags[TRIAL]: one for one in answer}
            page = answer.token or ""
        return cls(run, client, mlflow.get_tracking_uri(), number, there)

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.sent.values())

    @property
    def place(self) -> str:
        """Where a browser shows it; of a file, what it is."""
        path = f"#/experiments/{self.experiment}/runs/{self.parent}"
        return f"{self.uri.rstrip('/')}/{path}" if self.uri.startswith("http") else f"run {self.parent} in {self.uri}"

    def send(self, trial: ExportedTrial) -> None:
        """Bring a trial's child up to date. Raises: MlflowException."""
        earlier = self.there.get(trial.name)
        parameters = _params(trial.parameters)
        if earlier and dict(earlier.data.params) != parameters:
            # Another search under the same name, on the same split: parameters of MLflow's cannot be changed.
            self.client.delete_run(earlier.info.run_id)
            earlier = None
        if earlier and earlier.data.tags.get(CONTENT) == trial.content:
            self.sent[trial.name] = "unchanged"
            return
        begun = trial.begun or time.time()
        child = earlier.info.run_id if earlier else self._create(trial.name, f"trial {trial.name}", begun)
        known = int(earlier.data.tags.get(EPOCHS, 0)) if earlier else 0
        curves = [epoch for epoch in trial.curves if epoch.number > known]
        metrics = [metric for epoch in curves for metric in _metrics(epoch, begun)]
        ended = begun + (trial.curves[-1].seconds if trial.curves else 0)
        metrics += [Metric(_name(name), value, _milliseconds(ended), len(trial.curves)) for name, value in trial.best.items()]
        self._log(child, metrics, {} if earlier else parameters)
        self._upload(child, trial.files)
        self.client.set_terminated(child, STATUS.get(trial.state, "FINISHED"), _milliseconds(ended))
        # Last: an export that broke off begins this trial again.
        tags = {"sweepvote.state": trial.state, "sweepvote.reason": trial.reason, EPOCHS: str(len(trial.curves)), CONTENT: trial.content}
        self._tag(child, tags)
        self.sent[trial.name] = "changed" if earlier else "new"

    def finish(self) -> None:
        """Bring the run itself up to date, and its ensemble. Raises: MlflowException, RunError."""
        now = _milliseconds(time.time())
        metrics = [Metric(_name(name), value, now, 0) for name, value in self.run.values.items()]
        earlier = self.there.get("")
        known = dict(earlier.data.params) if earlier else {}
        # A command or a folder may have changed since; the parameters stay those of the first export.
        self._log(self.parent, metrics, {name: value for name, value in _params(self.run.parameters).items() if name not in known})
        self._upload(self.parent, self.run.files)
        self.model = self._send_ensemble(earlier)
        self.client.set_terminated(self.parent)

    def _send_ensemble(self, earlier: Run | None) -> str | None:
        """The address of the model; the earlier one where the ensemble is as it was."""
        folder = self.run.ensemble
        if folder is None:
            return None
        content = read_ensemble(folder)
        digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()[:16]
        tags = earlier.data.tags if earlier else {}
        if tags.get(CONTENT) == digest:
            return tags[MODEL]
        with TemporaryDirectory() as scratch:
            packed = pack_ensemble(folder, content, Path(scratch) / "packed")
            if novelty := read_novelty(folder, ensemble_hash(folder)):
                write_novelty(packed, novelty)
            with mlflow.start_run(run_id=self.parent):
                logged = mlflow.pyfunc.log_model(
                    name="ensemble",
                    loader_module=LOADER,
                    data_path=str(packed.parent.parent),
                    signature=ModelSignature(Schema([ColSpec("string")])),
                    pip_requirements=[f"{name}=={version(name)}" for name in ("sweepvote", "torch", "timm")],
                )
        self._tag(self.parent, {CONTENT: digest, MODEL: logged.model_uri})
        return logged.model_uri

    def _create(self, trial: str, name: str, begun: float) -> str:
        tags = {KEY: self.run.key, TRIAL: trial, "sweepvote.run": self.run.name}
        tags |= {"mlflow.parentRunId": self.parent} if trial else {}
        return self.client.create_run(self.experiment, _milliseconds(begun), tags, name).info.run_id

    def _log(self, run: str, metrics: Sequence[Metric], parameters: Mapping[str, str]) -> None:
        for some in _portions(metrics, AT_ONCE["metrics"]):
            self.client.log_batch(run, metrics=some)
        for some in _portions([Param(name, value) for name, value in parameters.items()], AT_ONCE["params"]):
            self.client.log_batch(run, params=some)

    def _tag(self, run: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run, tags=[RunTag(name, value[:LONGEST]) for name, value in tags.items()])

    def _upload(self, run: str, files: Mapping[str, Folder]) -> None:
        for name, file in files.items():
            with local_file(file) as local:
                self.client.log_artifact(run, str(local), name.rpartition("/")[0] or None)


def _params(values: Mapping[str, Plain]) -> dict[str, str]:
    """As MLflow keeps parameters; what is longer than it takes is cut."""
    return {_name(name): (value if isinstance(value, str) else json.dumps(value))[:LONGEST] for name, value in values.items()}


def _metrics(epoch: Epoch, begun: float) -> list[Metric]:
    return [Metric(_name(name), value, _milliseconds(begun + epoch.seconds), epoch.number) for name, value in epoch.values.items()]


def _name(name: str) -> str:
    """With other characters MLflow refuses a name."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _portions(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that the user has not set, for the length of the block."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
