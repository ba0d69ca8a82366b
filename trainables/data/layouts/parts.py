"""Words for the parts of a split that data sets bring with them: names of folders and files, and what a column `split` holds."""

import re

from trainables.data.settings import DataConfig

TRAIN, VALID, TEST = "train", "val", "test"

WORDS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), VALID),
    **dict.fromkeys(("test", "testing", "holdout", "hold-out", "eval", "evaluation"), TEST),
}
NONE = "none"  # the parts that the data brings with it are not used


def part_of(word: str, settings: DataConfig) -> str | None:
    """The part that a word stands for; None where it stands for none."""
    plain, given = word.strip().lower(), renamed(settings)
    usual = WORDS.get(plain)
    return given.get(plain) or (given.get(usual) if usual else None) or usual


def renamed(settings: DataConfig) -> dict[str, str]:
    """By word of the data, what data/split says that it stands for."""
    pairs = [piece.split("=", 1) for piece in pieces(settings) if "=" in piece]
    return {word.strip().lower(): part.strip().lower() for word, part in pairs}


def column_of(settings: DataConfig) -> str:
    """The column that data/split names; empty where it names none."""
    return next((piece for piece in pieces(settings) if "=" not in piece and piece != NONE), "")


def are_used(settings: DataConfig) -> bool:
    return NONE not in pieces(settings)


def pieces(settings: DataConfig) -> list[str]:
    return [piece.strip() for piece in settings.split.split(",") if piece.strip()]


def part_in(name: str, settings: DataConfig) -> str | None:
    """The part that one of the words of a file's or folder's name stands for, as in `train_images` or `train-00000-of-00002.parquet`."""
    if not are_used(settings):
        return None
    found = {part for word in re.split(r"[^a-z]+", name.lower()) if (part := part_of(word, settings))}
    return found.pop() if len(found) == 1 else None
