"""Labels in the names of files, as `--label-pattern '{label}_{n}'` reads them."""

import re
from pathlib import Path

from trainables.data.images import DataError, Images, LeftOut
from trainables.data.layouts import parts
from trainables.data.layouts.image_files import folders_below, look_into
from trainables.data.layouts.labelling import label
from trainables.data.layouts.layout import Layout, Listing
from trainables.data.settings import DataConfig

NUMBER, GROUP, SPLIT = "n", "group", "split"


def list_names(root: Path, settings: DataConfig) -> Listing:
    """Every image below a folder whose name is of the pattern; a pattern with a slash is held against the path too.

    Raises: DataError for a pattern that says nothing, and where no name is of it.
    """
    pattern = compiled(settings.label_pattern)
    folders = ["", *folders_below(root)]
    images = [f"{folder}/{image}" if folder else image for folder in folders for image in look_into(root / folder).images]
    pairs = [(image, _match(pattern, image, settings.label_pattern.count("/"))) for image in sorted(images)]
    kept = [(image, match.groupdict()) for image, match in pairs if match]
    lost = tuple(image for image, match in pairs if not match)
    if not kept:
        example = f"; the first is {lost[0]}" if lost else ""
        raise DataError(f"{root}: none of {len(images)} images has a name like data/label_pattern, {settings.label_pattern}{example}.")
    columns = {name: tuple(fields[name] for _, fields in kept) for name in pattern.groupindex if name != NUMBER}
    split = columns.pop(SPLIT, ()) if parts.are_used(settings) else ()
    return Listing(
        root=root,
        ids=tuple(image for image, _ in kept),
        columns=columns,
        places=tuple(str(root / image) for image, _ in kept),
        read_as=(f"labels in names of files, {settings.label_pattern}",),
        notes=(LeftOut("images of other names, not used", lost),),
        split=split,
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression: {n} is a number, every other name is some text. Raises: DataError."""
    names = re.findall(r"\{(\w*)\}", pattern)
    if not names or len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise DataError(f"data/label_pattern is {pattern!r}: it needs names in braces, each once, such as {{label}}_{{n}}.")
    pieces = re.split(r"\{\w*\}", pattern)
    groups = [rf"(?P<{name}>\d+)" if name == NUMBER else rf"(?P<{name}>[^/]+)" for name in names]
    text = "".join(piece for pair in zip(map(re.escape, pieces), [*groups, ""], strict=True) for piece in pair)
    return re.compile(text)


def _match(pattern: re.Pattern[str], image: str, slashes: int) -> re.Match[str] | None:
    """Of as many folders before the name as the pattern has, with or without suffix."""
    name = "/".join(image.split("/")[-1 - slashes :])
    return pattern.fullmatch(re.sub(r"\.[^./]*$", "", name)) or pattern.fullmatch(name)


def _read(root: Path, settings: DataConfig) -> Images:
    own = settings.model_copy(update={"group": settings.group or GROUP}) if f"{{{GROUP}}}" in settings.label_pattern else settings
    return label(root, list_names(root, own), own)


LAYOUT = Layout(
    name="file_names",
    title="a folder whose files say their labels",
    fits=lambda source, settings: bool(settings.label_pattern) and source.is_dir(),
    read=_read,
    scheme=lambda root, settings: _read(root, settings).scheme,
)
