"""`python -m trainables.cache`: list the decoded and copied images in the cache, or remove them."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainables.commands import program
from trainables.options import AsJson

if TYPE_CHECKING:
    from trainables.data.view_store import Listed
    from trainables.mirror import Copy

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@app.command()
def main(
    empty: Annotated[bool, typer.Option("--empty", help="Remove all that no running command uses.")] = False,
    older: Annotated[
        str | None, typer.Option(help="Remove images that no command has used for this long: 30d, 2w, 12h; not those in use.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the decoded images in the cache, and what was copied from object stores, or remove some of it.

        python -m trainables.cache
        python -m trainables.cache --older 30d
        python -m trainables.cache --empty

    Nothing is lost: commands decode, or copy, the images again when they need them. Only --empty removes copies. The cache is in
    $SWEEPVOTE_CACHE, or in ~/.cache/sweepvote; above $SWEEPVOTE_CACHE_LIMIT (such as 200GB; default 50GB) the least recently used
    decoded images are removed automatically.

    Exit codes: 0 done, 2 a wrong option or a cache that cannot be read or written.
    """
    from trainables.console import complain
    from trainables.data.view_store import CacheError, cache_limit, drop, features_folder, in_words, list_stores, old_files, view_cache
    from trainables.mirror import list_copies, remove_copies

    cache, freed = view_cache(), 0
    try:
        before = _before(empty, older)
        limit = cache_limit()
        with in_words(cache):
            if empty:
                freed += remove_copies()
            if before is not None and cache.is_dir():
                freed += drop(cache, before)
                if empty:
                    unpacked = [file for file in cache.parent.glob("unpacked/**/*") if file.is_file()]
                    freed += _remove([*old_files(cache), *cache.glob("files/*.json"), *cache.glob("faces-*.jsonl"), *unpacked])
            if before is not None:
                freed += _remove([file for file in features_folder().glob("*.npz") if file.stat().st_mtime < before])
            stores, old, features = list_stores(cache), old_files(cache), sorted(features_folder().glob("*.npz"))
            show(cache, stores, list_copies(), features, old, limit, freed=None if before is None else freed)
    except (CacheError, ValueError) as error:
        complain(str(error))
        raise typer.Exit(2) from None


def show(
    cache: Path,
    stores: "list[Listed]",
    copies: "list[Copy]",
    features: list[Path],
    old: list[Path],
    limit: int,
    *,
    freed: int | None,
) -> None:
    """A table of the views and lines of the copies, or the same as JSON.

    Args:
        freed: bytes, where something was to be removed.
    """
    from rich import box
    from rich.table import Table

    from trainables.console import document, output
    from trainables.data.view_store import features_folder

    console = output()
    table = Table(box=box.SIMPLE_HEAD)
    for name, justify in (("view", "left"), ("images", "right"), ("MB", "right"), ("last used", "left"), ("in use", "left")):
        table.add_column(name, justify=justify)
    for one in stores:
        used = datetime.fromtimestamp(one.used).strftime("%Y-%m-%d %H:%M") if one.used else ""
        table.add_row(one.shows, f"{one.images:,}", f"{one.size / 1e6:,.1f}", used, "yes" if one.in_use else "")
    console.print(str(cache), soft_wrap=True)
    console.print(table)
    total, old_size = sum(one.size for one in stores), sum(file.stat().st_size for file in old)
    console.print(f"{total / 1e9:.2f} GB in {len(stores)} views; above {limit / 1e9:g} GB the least recently used are removed.")
    if features:
        console.print(f"{sum(file.stat().st_size for file in features) / 1e9:.2f} GB of features of frozen networks in {features_folder()}")
    for copy in copies:
        console.print(f"{copy.size / 1e9:.2f} GB copied from {copy.address} in {copy.folder}", soft_wrap=True, markup=False)
    if old:
        console.print(f"{len(old)} files of earlier versions, {old_size / 1e9:.2f} GB, are not used any more: --empty removes them.")
    if freed is not None:
        busy = sum(one.in_use for one in stores)
        console.print(f"{freed / 1e9:.2f} GB freed." + (f" {busy} views stay, since running commands use them." if busy else ""))
    views = [
        {
            "view": one.shows,
            "folder": str(one.folder),
            "images": one.images,
            "bytes": one.size,
            "last_used": datetime.fromtimestamp(one.used, UTC).isoformat() if one.used else None,
            "in_use": one.in_use,
        }
        for one in stores
    ]
    old_ones = {"files": len(old), "bytes": old_size}
    copied = [{"address": copy.address, "folder": str(copy.folder), "bytes": copy.size} for copy in copies]
    kept = {"files": len(features), "bytes": sum(file.stat().st_size for file in features)}
    found = {"format": 1, "cache": str(cache), "limit": limit, "freed": freed, "views": views, "copies": copied}
    document(found | {"features": kept, "earlier_versions": old_ones})


def _before(empty: bool, older: str | None) -> float | None:
    """The time since which images have to be used to stay; None where nothing is to be removed. Raises: ValueError."""
    if older is None:
        return float("inf") if empty else None
    if empty:
        raise ValueError("--empty removes more than --older does; give one of them")
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", older)):
        raise ValueError(f"--older {older!r} is not a duration; write a number with m, h, d or w, such as 30d")
    return time.time() - float(found[1]) * SECONDS[found[2]]


def _remove(files: list[Path]) -> int:
    freed = 0
    for file in files:
        freed += file.stat().st_size
        file.unlink()
    return freed


if __name__ == "__main__":
    app(prog_name=program("trainables.cache"))
