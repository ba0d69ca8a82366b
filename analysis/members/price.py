"""What an answer costs each time that it is asked: time, memory and arithmetic of its models, measured on this device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from analysis.members.predictions import TrialModels
from trainables.storage import file_size, local_file

if TYPE_CHECKING:
    import torch

BATCH = 32  # images, beside one that comes alone
WARM = 2  # passes that are not timed
PASSES = 3, 20  # timed ones: at least, at most
SECONDS = 0.5  # after which no further pass is timed


@dataclass(frozen=True)
class Price:
    """Of one image, decoded and in its view."""

    ms: float  # of an image that comes alone
    ms_in_batch: float  # of an image among BATCH
    megabytes: float  # of weights
    gflops: float  # 1e9 multiplications and additions

    def __str__(self) -> str:
        return f"{self.ms:.3g} ms an image ({self.ms_in_batch:.3g} ms in a batch of {BATCH}), {self.megabytes:.3g} MB"


@dataclass(frozen=True, eq=False)
class Limit:
    """The most that an answer may cost, and what the trials cost."""

    prices: Mapping[str, Price]  # of every trial that can answer
    ms: float = float("inf")  # of an image that comes alone
    megabytes: float = float("inf")

    def allows(self, trials: Sequence[str], looks: int = 1) -> bool:
        """Whether an answer by these trials, with so many transforms of each image, is within it; trials without weights answer nothing."""
        if any(name not in self.prices for name in trials):
            return True
        found = price_of(self.prices, trials, looks)
        return found.ms <= self.ms and found.megabytes <= self.megabytes

    def __str__(self) -> str:
        asked = {"--max-ms": self.ms, "--max-mb": self.megabytes}
        return " ".join(f"{name} {value:g}" for name, value in asked.items() if value < float("inf"))


def price_of(prices: Mapping[str, Price], trials: Sequence[str], looks: int = 1) -> Price:
    """Of an answer by these trials, one after the other, with so many transforms of each image."""
    own = [prices[name] for name in dict.fromkeys(trials)]
    ms, in_batch, gflops = (looks * sum(values) for values in zip(*((one.ms, one.ms_in_batch, one.gflops) for one in own), strict=True))
    return Price(ms, in_batch, sum(one.megabytes for one in own), gflops)


def fastest(one: Price | None, other: Price) -> Price:
    """The same models' price, measured twice: the lower time of each."""
    return other if one is None else replace(other, ms=min(one.ms, other.ms), ms_in_batch=min(one.ms_in_batch, other.ms_in_batch))


def measure(trial: TrialModels, device: "torch.device") -> Price:
    """The price of all models of a trial: the fastest pass over black images, and the operations that PyTorch counts in one."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from trainables.checkpoint import load_model
    from trainables.loop import choose_precision, mixed_precision
    from trainables.models.assemble import to_input

    found = Price(0.0, 0.0, 0.0, 0.0)
    for file in trial.models:
        with local_file(file) as local:
            model, card = load_model(local, device)
        model.eval()
        precision = choose_precision(card.config.train.precision, device)
        shape = (trial.view.height, trial.view.width, 4 if trial.edges else 3)

        def answer(images: int, model=model, precision=precision, shape=shape) -> None:
            with torch.inference_mode(), mixed_precision(device, precision):
                logits = model(to_input(torch.zeros((images, *shape), dtype=torch.uint8), device)).logits
            # To the CPU, as the answer is needed there; it waits for the GPU.
            for head in logits:
                head.cpu()

        with FlopCounterMode(display=False) as counter:
            answer(1)
        alone, together = (1000 * _seconds(lambda images=images: answer(images)) / images for images in (1, BATCH))
        found = Price(
            found.ms + alone,
            found.ms_in_batch + together,
            found.megabytes + file_size(file) / 1e6,
            found.gflops + counter.get_total_flops() / 1e9,
        )
    return found


def _seconds(work: Callable[[], None]) -> float:
    for _ in range(WARM):
        work()
    found: list[float] = []
    least, most = PASSES
    while len(found) < least or (len(found) < most and sum(found) < SECONDS):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    # What else runs can only slow a pass down.
    return min(found)
