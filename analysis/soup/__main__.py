"""The command: which trials are similar, what soups are made of them, and their scores."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.command import RunOption, read_runs, refusals, restore, show_left_out, show_written
from analysis.evaluation.answering import choose_device
from analysis.evaluation.uncertainty import gain_words
from analysis.members.soup.alike import find_groups, kind_words
from analysis.members.trials import Runs, Trial, with_finalists
from trainables.commands import program, typed
from trainables.console import document, output
from trainables.data.images import LeftOut
from trainables.data.views import View, open_view
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, name_of
from trainables.seeding import generator

if TYPE_CHECKING:
    from analysis.members.soup.average import MakeSoup, Soup
    from analysis.soup.outcome import Outcome

MEASURED = 2048  # training images by which the statistics of a soup's BatchNorm layers are measured

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    run: RunOption = None,
    top: Annotated[int, typer.Option(min=2, help="How many of a group's best trials the uniform soup takes.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the training images for BatchNorm, and the groups of the bootstrap.")] = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Average the weights of similar trials into one network that costs at inference what one trial does.

    Trials are similar when their networks have the same tensors, see the same view, predict the same task and began from the same
    pretrained weights: the mean of networks that began at random is useless. Of each group of similar trials, [bold]uniform[/] takes
    the best few; [bold]greedy[/] tries all, best first, and keeps each one with which the soup's validation score does not fall.

        python -m analysis.soup --run faces

        python -m analysis.ensemble --run faces --run faces-soup

    The better soup of each group, if it is not below the group's best trial, becomes a trial of a new run, runs/<first run>-soup/. Of a
    search the trials are averaged that it trained on its own fold, and not the finalists, whose models saw other folds.
    """
    with refusals():
        make_soups_of(run, top=top, seed=seed)


def make_soups_of(names: Sequence[str] | None, *, top: int, seed: int) -> None:
    """Load, group, average, print, write. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    runs = read_runs(names, finalists=False)
    groups, unlike = find_groups(runs.trials, runs.metric)
    left_out = [*runs.left_out, *unlike]
    if not groups:
        _refuse(runs, left_out)
    show_left_out(console, left_out)

    device = choose_device()
    with waiting("importing timm"):
        from analysis.members.soup.average import soup_maker
        from analysis.soup.files import write_soups
        from analysis.soup.outcome import make_soups

    configs = [group[0].record.config for group in groups]
    images, split, files = restore(runs, configs, console)
    views = {view: open_view(file) for view, file in files.files.items()}
    train = generator(seed, "soup").permutation(split.train)[:MEASURED]
    outcomes = []
    # The best trial alone, the uniform soup, and one try for each further trial.
    with progress_bar("averaging weights", sum(len(group) + 1 for group in groups)) as advance:
        for group in groups:
            view = views[View.of(group[0].record.config.view)]
            taught, validated = (view.rows(images.take(part).ids) for part in (train, split.valid))
            with soup_maker(group, view.images, taught, validated, runs.valid, runs.metric, device) as make_soup:
                outcomes.append(make_soups(group, _counting(make_soup, advance), runs.valid, runs.metric, top=top, seed=seed))
    for outcome in outcomes:
        show(console, outcome)
    kept = [outcome for outcome in outcomes if outcome.kept]
    if not kept:
        console.print("No soup is worth keeping: nothing was written.")
        document({"soups": [soups_values(outcome) for outcome in outcomes], "files": []})
        return
    written = write_soups(runs, kept, device)
    words = "Validation chose the ingredients, so a soup's validation score is optimistically biased; the hold-out is not"
    # Finalists answer for every fold, and a soup for one: they do not vote together.
    together = () if len(with_finalists(runs.folders)) > len(runs.folders) else runs.asked
    asked = " ".join(f"--run {name_of(folder)}" for folder in (*together, written))
    console.print(f"{words}: {typed(f'analysis.ensemble {asked}')}", soft_wrap=True)
    show_written(console, [written])
    document({"soups": [soups_values(outcome) for outcome in outcomes], "files": [written]})


def soups_values(outcome: "Outcome") -> dict[str, Any]:
    """The soups of a group of similar trials, and which is kept, as plain values."""
    soups = {
        name: {"score": soup.score, "trials": [trial.name for trial in soup.ingredients], **outcome.gains[name].plain()}
        for name, soup in outcome.soups.items()
    }
    best = outcome.trials[0]
    return {"metric": outcome.metric.name, "best": {"trial": best.name, "score": best.score}, "soups": soups, "kept": outcome.kept or None}


def show(console: Console, outcome: "Outcome") -> None:
    """The ingredients with their scores, the soups, and which one is kept."""
    table = Table(title=f"Similar trials: {kind_words(outcome.trials[0])}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("trial", overflow="fold")
    table.add_column(f"validation\n{outcome.metric.title}", justify="right")
    for name in outcome.soups:
        table.add_column(f"in {name}", justify="center")
    table.add_column("gain over the best trial (95 %)", justify="right")
    for trial in outcome.trials:
        table.add_row(trial.name, f"{trial.score:.3f}", *("x" if trial in soup.ingredients else "" for soup in outcome.soups.values()), "")
    for name, soup in outcome.soups.items():
        counts = [str(len(soup.ingredients)) if other == name else "" for other in outcome.soups]
        words = gain_words(outcome.gains[name]) if len(soup.ingredients) > 1 else "the best trial alone"
        table.add_row(f"{name} soup", f"{soup.score:.3f}", *counts, words, style="bold" if name == outcome.kept else None)
    console.print(table)
    best = outcome.trials[0].name
    fate = f"The {outcome.kept} soup is kept" if outcome.kept else f"No soup of several trials reaches {best}, so none is kept"
    console.print(f"{fate}. {outcome.seconds:.0f} seconds.")


def _counting(make_soup: "MakeSoup", advance: Callable[[int], None]) -> "MakeSoup":
    def counted(ingredients: Sequence[Trial]) -> "Soup":
        soup = make_soup(ingredients)
        advance(1)
        return soup

    return counted


def _refuse(runs: Runs, left_out: Sequence[LeftOut]) -> NoReturn:
    there = "\n".join(f"  {item}" for item in left_out)
    names = ", ".join(folder.resolve().name for folder in runs.asked)
    fix = "Search with pretrained weights (model/weights imagenet or a file), one backbone, view and task for several trials."
    raise RunError(f"{names}: no two trials are similar, so there is nothing to average:\n{there}\n{fix}")


if __name__ == "__main__":
    app(prog_name=program("analysis.soup"))
