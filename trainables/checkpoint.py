"""Checkpoints: weights together with all that inference needs, so that it takes a file and images and nothing else."""

import io
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from trainables.card import Card
from trainables.loop import Parts, Progress
from trainables.models.assemble import IMAGENET, Classifier, build_model
from trainables.registry import ConfigError, Mistake
from trainables.storage import Folder


def pack_model(model: Classifier, card: Card) -> bytes:
    """The model as the bytes of a safetensors file; normalisation is among its tensors, the card in its header."""
    # safetensors stores contiguous memory only, so the channels-last layout ends here and begins again on loading.
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    # One entry: several would be written in an order that changes from call to call.
    return save(tensors, metadata={"card": card.text()})


def load_model(file: Path, device: str | torch.device = "cpu") -> tuple[Classifier, Card]:
    """The model, ready to predict, and its card."""
    with safe_open(file, framework="pt") as reader:
        card = Card.read(reader.metadata()["card"])
        tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - safe_open is no mapping
    bare = card.config.model_copy(update={"model": card.config.model.model_copy(update={"weights": "none"})})
    model = build_model(bare, card.task, IMAGENET)
    model.load_state_dict(tensors)
    return model.to(device).eval(), card


def begin_from(file: Folder, parts: Parts) -> None:
    """Give the model, and the moving average of its weights, those of a packed one. Raises: ConfigError where the file cannot be used."""
    try:
        tensors = load(file.read_bytes())
        parts.model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        message = f"goes on from {file}, which cannot be used ({str(error).splitlines()[0]}); refit the trial again into a new run"
        raise ConfigError([Mistake("data/only", message)]) from None
    if parts.average:
        parts.evaluated.load_state_dict(tensors)


def pack_progress(parts: Parts, progress: Progress) -> bytes:
    """All that is needed to continue a trial, as the bytes of a torch file of tensors and plain values."""
    buffer = io.BytesIO()
    state = {
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "schedule": parts.schedule.state(),
        "average": parts.average.state_dict() if parts.average else {},
        "scaler": parts.scaler.state_dict(),
        "progress": asdict(progress),
    }
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_progress(content: bytes, parts: Parts) -> Progress:
    """Put a packed state into the parts; `fit` resumes from what is returned."""
    # On the CPU first: each loader brings its tensors where they belong, and step counters of optimizers belong on the CPU.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    parts.schedule.load_state(state["schedule"])
    if parts.average:
        parts.average.load_state_dict(state["average"])
    # Empty where the trial began on a device of another precision; the scale is then found again.
    if state["scaler"]:
        parts.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
