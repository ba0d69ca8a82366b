"""Parts of a backbone that keep their first weights, for some epochs or for ever."""

import math
from dataclasses import dataclass

from torch import nn

from trainables.models.backbone import networks
from trainables.models.settings import FREEZES, FrozenSettings, ModelConfig
from trainables.models.stages import stages
from trainables.registry import ConfigError, Mistake, choose


@dataclass(frozen=True)
class Freeze:
    """Which parameters of a backbone keep their weights, by name, and for how many epochs."""

    names: frozenset[str] = frozenset()
    epochs: float = 0  # infinity: for ever

    def begin_epoch(self, backbone: nn.Module, epoch: int) -> None:
        """Freeze or thaw the backbone, which is in training mode, for the epoch with this number, the first being 1.

        A module that is frozen as a whole goes into eval mode: its BatchNorm statistics stay, and it leaves nothing out.
        """
        holds = epoch <= self.epochs
        for name, parameter in backbone.named_parameters():
            if name in self.names:
                parameter.requires_grad_(not holds)
        if holds:
            _rest(backbone)


def build_freeze(config: ModelConfig, backbone: nn.Module) -> Freeze:
    """What `model/freeze` freezes. What never trains loses `requires_grad` at once, so that no optimizer gets it.

    Raises: ConfigError when all stages would train, or when the channel of edges would have no effect.
    """
    keep = choose(FREEZES, config.freeze, "model/freeze").build
    if not isinstance(config, FrozenSettings):
        return Freeze()
    mistakes, names = [], []
    for prefix, network in networks(backbone).items():
        found = stages(network)
        frozen = keep(config, found)
        if not frozen:
            what = f"{network.pretrained_cfg['architecture']} has {len(found)} stages"
            mistakes.append(Mistake("model/train_stages", f"freezes nothing: {what}; lower it, or use freeze: none"))
        # Some networks hold parameters that are never to be trained.
        trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        names += [prefix + name for stage in frozen for name in stage if name in trained]
    if config.for_ever and config.edges == "stem":
        message = "stem has no effect, since model/freeze keeps the first layer and its weights for edges stay 0; use mix, or freeze: none"
        mistakes.append(Mistake("model/edges", message))
    if mistakes:
        raise ConfigError(mistakes)
    freeze = Freeze(frozenset(names), math.inf if config.for_ever else config.unfreeze_epoch)
    if config.for_ever:
        freeze.begin_epoch(backbone, 1)
    return freeze


def _rest(module: nn.Module) -> None:
    """Put every module into eval mode that has parameters, but none that trains."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
    else:
        for child in module.children():
            _rest(child)
