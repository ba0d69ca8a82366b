"""How images become labels and splits: the sections `data` and `labels` of a configuration."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from trainables.registry import Numbers, Range, Section, Share, ascending, setting

ALL = "*"  # as data/target: every column that is nothing else


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) and given else () if given == "" else given


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(strict=False)]
PART_WORDS = ("train", "val", "test")


class DataConfig(Section):
    """How images become labels and splits. Fixed for a run: trials on different splits cannot be compared."""

    cuts: Numbers = setting(
        "first number of each class but the lowest, where a class is cut from a number; empty: as the data has them", ()
    )
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = setting("share of the groups in the hold-out, which the search never sees", 0.15)
    folds: Annotated[int, Field(ge=2)] = setting("number of folds of the other groups; one of them validates", 5)
    fold: Annotated[int, Field(ge=-1)] = setting("the fold that validates; -1: no validation split, for a refit on all data", 0)
    only: Annotated[int, Field(ge=-1)] = setting(
        "the one fold that trains, for a refit of the last epochs, which go on from the searched trial's weights; -1: all that may", -1
    )
    layout: str = setting("how images and labels are stored; empty: the first layout that fits", "")
    target: Names = setting(
        "the columns to predict; empty: the one called label, class, target, category or y; *: every column that is nothing else",
        (),
        'names: one, several with commas between, or a list of them; "*" for all',
    )
    tags: Names = setting("the columns, or the one column, of tags, any number of which an image may have", (), "as data/target")
    number: str = setting("the column of a number that is predicted as such", "")
    image: str = setting("the column that names the image; empty: the one called image, file name, path, id or alike", "")
    images: str = setting("the folder of the images that a table names, from the table; empty: where most of them are found", "")
    split: str = setting(
        "the column with the part of each image; empty: a column split, or the names of folders and files; none: ignore them. "
        "Words for a part, as in val=test, may follow, with commas between",
        "",
    )
    folders: Literal["", "path", "top", "flat"] = setting(
        "nested class folders: the class of an image is the path of its folder (path), the top folder (top), or only images directly "
        "in a top folder are used (flat); empty: path",
        "",
    )
    label_pattern: str = setting("labels in file names, such as {label}_{n}; empty: none", "")
    group: str = setting("table: the column whose value images of one group share; empty: `person` where there is one", "")
    ordinal: str = setting("table: the column that holds a number and is classed by data/cuts; empty: none", "")
    extra: Annotated[tuple[str, ...], Field(strict=False)] = setting(
        "additional labelled images that only train: folders or tables, read as --data is", ()
    )
    pseudo: str = setting("a probabilities.csv of an ensemble, whose images train with these soft labels", "")
    unlabelled: Annotated[tuple[str, ...], Field(strict=False)] = setting(
        "folders of images without labels, which semi/name fixmatch learns from, too", ()
    )
    weights: str = setting("a table `photo,weight`: relative frequency of each image in the sampler weighted", "")

    @property
    def goes_on(self) -> bool:
        """Whether the last epochs alone are trained, on one fold, from the weights of a searched trial."""
        return self.only >= 0

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[int, ...]) -> tuple[int, ...]:
        return ascending(cuts)

    @field_validator("split")
    @classmethod
    def _parts(cls, split: str) -> str:
        wrong = [piece for piece in split.split(",") if "=" in piece and piece.split("=", 1)[1].strip() not in PART_WORDS]
        if wrong:
            raise ValueError(f"{wrong[0]!r} does not end in =train, =val or =test")
        return split


# What was done before these settings were there: whatever was written without them was made so.
BEFORE: dict[str, Any] = {"target": [ALL], "folders": "flat", "split": "none"}


class LabelsConfig(Section):
    """Changes to the labels of training images; validation and hold-out keep the original ones."""

    relabel: str = setting(
        "corrections of wrong labels: none, a table of your own, or consensus or extended, which come with the contest's data", "none"
    )
    cuts: Numbers = setting("data/cuts for training images alone; empty: as data/cuts", ())
    remove: Annotated[tuple[Range, ...], Field(strict=False)] = setting(
        "ranges [first, last] of the number whose images do not train, such as [[27, 29], [57, 59]]", ()
    )
    jitter: Annotated[float, Field(ge=0, le=100)] = setting(
        "loss/regression: mean of the Poisson noise added to numbers at their cap, the largest number", 0.0
    )
    extra: bool = setting("whether the images of data/extra and data/pseudo train", True)
    confidence: Share = setting("data/pseudo: smallest probability of the most probable class of an image that trains", 0.9)
    teacher: Share = setting("a run of tuner.distill: share of the teacher's answer in what an image is taught; the rest is its label", 1.0)

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[int, ...]) -> tuple[int, ...]:
        return ascending(cuts)

    @field_validator("remove")
    @classmethod
    def _ranges(cls, ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(first > last for first, last in ranges):
            raise ValueError("each range is [first, last], and first must not be above last")
        return ranges
