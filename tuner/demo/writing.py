"""The drawn people as files, in the contest's exact folder layout."""

import csv
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.layouts import contest
from trainables.registry import ConfigError, Mistake
from tuner.demo.drawing import PORTRAIT, SHOTS, Framing, draw_shots
from tuner.demo.people import GENDERS, PLANTED, Person, cast_people

LAYOUT = contest.LAYOUT  # in which the drawn people are written
QUIRKY = 20  # people from which on every quirk is planted

_EXTENSIONS = {"extensions": {"mask1": ".jpeg", "mask2": ".png"}, "modes": {"mask1": ".png", "mask2": ".png", "mask3": ".png"}}
_MODES = {"mask1": "RGBA", "mask2": "P", "mask3": "L"}
_APPLE_DOUBLE = bytes.fromhex("0005160700020000").ljust(4096, b"\0")  # magic and version of the format; what macOS leaves in archives


def write_people(
    folder: Path,
    *,
    people: int,
    seed: int,
    eval_people: int = 0,
    size: tuple[int, int] = (192, 256),
    cuts: tuple[int, ...] = contest.CUTS,
    quirks: bool = True,
    framing: Framing = PORTRAIT,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draw seven images of each person and return `folder`; it is complete or absent, and the same seed gives the same bytes.

    Writes `train/train.csv` and `train/images/<id>_<gender>_<race>_<age>/`; with eval_people also `eval/info.csv`, `eval/images/`
    and, for grading, the true joint classes in `eval/answers.csv`.

    Args:
        folder: must not exist yet, or be empty.
        people, eval_people: each part fills gender and age bands in the contest's shares, rare ones a little above.
        size: (width, height) in pixels.
        cuts: first years of all age bands but the youngest, as `contest_scheme` takes them; only the answers depend on them.
        quirks: plant what is odd in the contest's files, see PLANTED; with fewer than 20 people nothing is planted.
        framing: where in the images the faces are.
        progress: called with how many more people are drawn, of people + eval_people in all.
    Raises: ConfigError.
    """
    _check(folder, people, eval_people, size)
    planted = PLANTED if quirks and people >= QUIRKY else {}
    trained, tested = cast_people(people, (seed, 0), planted), cast_people(eval_people, (seed, 1), {})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside, ThreadPoolExecutor() as pool:
        new = Path(beside, "new")
        images = {part: new / part / "images" for part in ("train", "eval")}
        images["train"].mkdir(parents=True)
        if tested:
            images["eval"].mkdir(parents=True)
        quirk_of = {id: quirk for quirk, id in planted.items()}
        written = [pool.submit(_write_folder, person, images["train"], size, framing, quirk_of.get(person.id, "")) for person in trained]
        nameless = [pool.submit(_write_nameless, person, images["eval"], size, framing) for person in tested]
        for job in (*written, *nameless):
            job.result()
            if progress:
                progress(1)
        rows = [(p.id, GENDERS[p.gender], "Asian", p.age, p.folder) for p in sorted(trained, key=lambda p: p.folder)]
        _write_csv(new / "train" / "train.csv", ("id", "gender", "race", "age", "path"), rows)
        if tested:
            answers = [row for job in nameless for row in job.result()]
            _write_answers(new / "eval", answers, cuts, np.random.default_rng((seed, 2)))
        new.rename(folder)
    return folder


def _check(folder: Path, people: int, eval_people: int, size: tuple[int, int]) -> None:
    mistakes = []
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        mistakes.append(Mistake("folder", f"{folder} exists; delete it or name another"))
    if people < 1:
        mistakes.append(Mistake("people", f"must be at least 1, got {people}"))
    if eval_people < 0:
        mistakes.append(Mistake("eval_people", f"must not be negative, got {eval_people}; 0 writes no eval folder"))
    if min(size) < 16:
        mistakes.append(Mistake("size", f"height and width must be at least 16 pixels, got {size[0]} x {size[1]}"))
    if mistakes:
        raise ConfigError(mistakes)


def _write_folder(person: Person, images: Path, size: tuple[int, int], framing: Framing, quirk: str) -> None:
    folder = images / person.folder
    folder.mkdir()
    for stem, image in draw_shots(person, size, framing):
        if quirk == "missing" and stem == "mask3":
            continue
        path = folder / f"{stem}{_EXTENSIONS.get(quirk, {}).get(stem, '.jpg')}"
        _save(image.convert(_MODES.get(stem, "RGB")) if quirk == "modes" else image, path)
        if quirk == "truncated" and stem == "normal":
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    if quirk == "junk":
        (folder / "._mask1.jpg").write_bytes(_APPLE_DOUBLE)
        hidden = images / f"._{person.folder}"
        hidden.mkdir()
        (hidden / "mask1.jpg").write_bytes(_APPLE_DOUBLE)


def _write_nameless(person: Person, images: Path, size: tuple[int, int], framing: Framing) -> list[tuple[str, int, int, int]]:
    """Write the images under names that don't tell the person; returns (name, mask, gender, age) of each."""
    names = np.random.default_rng((*person.seed, 1))
    rows = []
    for stem, image in draw_shots(person, size, framing):
        name = f"{names.bytes(20).hex()}.jpg"
        _save(image, images / name)
        rows.append((name, SHOTS[stem], person.gender, person.age))
    return rows


def _write_answers(folder: Path, answers: list[tuple[str, int, int, int]], cuts: tuple[int, ...], rng: np.random.Generator) -> None:
    answers = [answers[place] for place in rng.permutation(len(answers))]
    labels = np.array([(mask, gender, np.searchsorted(cuts, age, side="right")) for _, mask, gender, age in answers])
    names = [name for name, *_ in answers]
    _write_csv(folder / "info.csv", ("ImageID", "ans"), ((name, 0) for name in names))
    _write_csv(folder / "answers.csv", ("ImageID", "ans"), zip(names, contest.contest_scheme(cuts).joint(labels), strict=True))


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, quality=88) if path.suffix != ".png" else image.save(path, compress_level=1)
