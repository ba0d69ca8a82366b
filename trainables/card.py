"""The card in the header of a weights file: settings, targets, epoch; it can be read without torch."""

import json
from dataclasses import dataclass

from safetensors import safe_open

from trainables.config import TrialConfig
from trainables.data.targets import Kind, Scheme, Task, read_target, read_task
from trainables.data.views import View
from trainables.metrics import metric_of
from trainables.migrations import migrated, stamped
from trainables.storage import Folder, local_file


@dataclass(frozen=True)
class Card:
    """What a checkpoint says about its model."""

    config: TrialConfig
    scheme: Scheme  # of the data: every target, in order
    epoch: int  # after which the model was so

    @property
    def task(self) -> Task:
        return read_task(self.config.task, self.scheme)

    @property
    def kind(self) -> Kind:
        """Of the targets that its metric scores."""
        return metric_of(self.config.metric, self.task.scheme).target

    @property
    def view(self) -> View:
        return View.of(self.config.view)

    def text(self) -> str:
        """The card as JSON."""
        return json.dumps(
            {"config": stamped(self.config.values()), "attributes": [one.plain() for one in self.scheme.targets], "epoch": self.epoch}
        )

    @classmethod
    def read(cls, text: str) -> "Card":
        """The inverse of `text`."""
        card = json.loads(text)
        scheme = Scheme(tuple(map(read_target, card["attributes"])))
        return cls(TrialConfig.read(migrated("config", card["config"], "a file of weights"))[0], scheme, card["epoch"])


def read_card(file: Folder) -> Card:
    """The card of a weights file, in a folder or an object store."""
    with local_file(file) as local, safe_open(local, framework="np") as reader:
        return Card.read(reader.metadata()["card"])
