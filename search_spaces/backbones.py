"""`python -m search_spaces.backbones resnet18 'efficientnet_b*'`: backbones by numbers, to choose those that a space should have.

As `describe`, it explains names to people: nothing imports this module, and it alone of this package imports what knows networks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_spaces.errors import UserError
from search_spaces.read import read_space, shipped_spaces
from trainables.commands import launch
from trainables.console import STOPPED, complain, document, output
from trainables.options import AsJson

if TYPE_CHECKING:
    from trainables.models.catalogue import Backbone

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
PATHS = ("model/backbone", "model/second")
# By the name of --sort: what is compared, the best first.
ORDERS: Mapping[str, Callable[["Backbone"], Any]] = {
    "accuracy": lambda one: (one.accuracy is None, -one.accuracy.top1 if one.accuracy else 0.0, one.parameters),
    "params": lambda one: one.parameters,
    "gflops": lambda one: (one.gflops is None, one.gflops or 0.0),
    "mb": lambda one: one.megabytes,
    "name": lambda one: one.name,
}


def count(text: str) -> float:
    """`20M`, `5.3m` or `20000000` as a number. Raises: typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text.strip().lower())
    if not match:
        raise typer.BadParameter(f"{text!r} is not a number of parameters; write 20M")
    return float(match[1]) * UNITS[match[2]]


def main(
    patterns: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="timm's names; * stands for any letters.")] = None,
    space: Annotated[
        str | None, typer.Option(help=f"The backbones of a space: a YAML file, or one of {', '.join(shipped_spaces())}.")
    ] = None,
    max_params: Annotated[float | None, typer.Option(parser=count, metavar="N", help="At most so many parameters: 20M.")] = None,
    max_gflops: Annotated[
        float | None, typer.Option(min=0, help="At most so many GFLOPs an image, at the size of its pre-training.")
    ] = None,
    better_than: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those with fewer parameters than this one, and a higher accuracy.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Accuracies: results-imagenet.csv from the folder results/ of timm's repository.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights as model/weights has them, such as 'weights/{backbone}.safetensors'.")
    ] = None,
    sort: Annotated[str, typer.Option(help=f"What comes first: {', '.join(ORDERS)}.")] = "accuracy",
    as_json: AsJson = False,
) -> None:
    """List backbones by numbers: parameters, GFLOPs, MB, size and accuracy of their pre-training, and where their weights are.

        python -m search_spaces.backbones resnet18 resnet34 'efficientnet_b*' --max-params 20M --max-gflops 2

        python -m search_spaces.backbones --space effnet.yaml

        python -m search_spaces.backbones 'tf_efficientnet*' --better-than resnet34

    Parameters are counted with the classifier of the pre-training, as papers do; MB are those of a trial's weights, without it. A GFLOP is
    a thousand million multiply-adds. All is counted without a network connection and without allocating the weights.

    Accuracies (top-1 on ImageNet, percent) come from --results, from torchvision's own table, and from papers; what none of these knows is
    left empty. Where they are of other weights than those that the name stands for, these are named.
    """
    try:
        listed(patterns or [], space, max_params, max_gflops, better_than, results, weights, sort)
    except UserError as error:
        complain(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        complain(STOPPED)
        raise typer.Exit(130) from None


def listed(
    patterns: list[str],
    space: str | None,
    max_params: float | None,
    max_gflops: float | None,
    better_than: str | None,
    results: Path | None,
    weights: str | None,
    sort: str,
) -> None:
    """Count and print. Raises: SpaceError, ConfigError."""
    from trainables.registry import ConfigError, Mistake

    if sort not in ORDERS:
        raise ConfigError([Mistake("sort", f"is {sort!r}; choose one of {', '.join(ORDERS)}")])
    if not patterns and not space:
        raise ConfigError([Mistake("NAME", "give names or patterns of backbones, such as resnet18 'efficientnet_b*', or --space FILE")])
    of_space, own_weights = backbones_of(space) if space else ([], "imagenet")
    from trainables.progress import progress_bar, waiting

    with waiting("importing timm"):
        from trainables.models.catalogue import matching, measure, read_results
    names = matching([*patterns, *of_space, *([better_than] if better_than else [])])
    known = read_results(results) if results else {}
    with progress_bar("counting", len(names)) as progress:
        found = {}
        for name in names:
            found[name] = measure(name, known, weights or own_weights)
            progress(1)
    mark = found[matching([better_than])[0]] if better_than else None
    kept = [one for one in found.values() if _fits(one, max_params, max_gflops, mark)]
    kept.sort(key=lambda one: (ORDERS[sort](one), one.name))
    show(kept, len(found), bool(results))
    document({"backbones": [asdict(one) for one in kept], "looked_at": len(found)})


def backbones_of(space: str) -> tuple[list[str], str]:
    """The backbones that a space can draw, and its first weights. Raises: SpaceError."""
    from trainables.config import choosers

    read = read_space(space, choosers=choosers())
    drawn = {parameter.path: list(parameter.domain.ends()) for parameter in read.parameters}
    values = {path: [value] for path, value in read.fixed.items()} | drawn
    names = [str(name) for path in PATHS for name in values.get(path, []) if name]
    return list(dict.fromkeys(names)), str(values.get("model/weights", ["imagenet"])[0])


def _fits(one: "Backbone", max_params: float | None, max_gflops: float | None, mark: "Backbone | None") -> bool:
    if max_params is not None and one.parameters > max_params:
        return False
    if max_gflops is not None and (one.gflops is None or one.gflops > max_gflops):
        return False
    if mark is None or one is mark:
        return True
    better = one.accuracy is not None and mark.accuracy is not None and one.accuracy.top1 > mark.accuracy.top1
    return better and one.parameters < mark.parameters


def show(kept: "list[Backbone]", looked_at: int, with_results: bool) -> None:
    """Print the table, and where further accuracies are."""
    from rich import box
    from rich.table import Table

    console = output()
    table = Table(title=f"{len(kept)} of {looked_at} backbones", title_justify="left", box=box.SIMPLE_HEAD)
    for head, numbers in (("backbone", 0), ("params (M)", 1), ("GFLOPs", 1), ("MB", 1), ("pixels", 1), ("top-1 (%)", 1)):
        table.add_column(head, justify="right" if numbers else "left", overflow="fold")
    table.add_column("accuracy of", overflow="fold")
    table.add_column("weights", overflow="fold")
    for one in kept:
        known = one.accuracy
        table.add_row(
            one.name,
            f"{one.parameters / 1e6:.1f}",
            "" if one.gflops is None else f"{one.gflops:.2f}",
            f"{one.megabytes:.0f}",
            str(one.size),
            f"{known.top1:.1f}" if known else "",
            f"{known.weights} ({known.source})" if known and known.source not in known.weights else known.weights if known else "",
            one.weights,
        )
    console.print(table)
    unknown = sum(one.accuracy is None for one in kept)
    if unknown and not with_results:
        words = "timm's own table has nearly all: results/results-imagenet.csv of its repository, given as --results FILE"
        console.print(f"The accuracy of {unknown} is not known here; {words}.", style="yellow", soft_wrap=True)


if __name__ == "__main__":
    launch(main, "search_spaces.backbones")
