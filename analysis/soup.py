"""The command: weight soups, each the mean of the weights of trials that began alike, and one network at inference.

Source: Wortsman, Ilharco, Gadre et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time, ICML 2022.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Annotated, NoReturn

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analysis.command import RunOption, decode, output, refusals, run_folders
from analysis.predictions import data_folder
from analysis.trials import Runs, Sample, Trial, load_runs, task_words
from analysis.uncertainty import Gain, paired_gain
from trainables.checkpoint import Card, load_model, pack_model
from trainables.config import ModelConfig
from trainables.data.batches import plain_batches
from trainables.data.labels import Task
from trainables.data.photos import LeftOut, Photos, read_photos
from trainables.data.splits import NOBODY, Split
from trainables.data.views import View, open_view
from trainables.loop import choose_precision, mixed_precision, predict
from trainables.losses import COSINE
from trainables.metrics import accuracy, attribute_f1, confusion, person_counts
from trainables.models.assemble import Classifier, to_input
from trainables.progress import progress_bar
from trainables.record import (
    MODEL,
    RUNS,
    SPLIT,
    Predictions,
    Result,
    RunCard,
    RunError,
    start_record,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
    write_run,
)
from trainables.reopen import EXTRA, restore_split
from trainables.seeding import generator
from trainables.storage import Folder, local_file, write_whole
from trainables.versions import code_version, device_name, versions

MEASURED = 2048  # training photos by which the statistics of a soup's BatchNorm layers are measured

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    run: RunOption = None,
    top: Annotated[int, typer.Option(min=2, help="How many of a group's best trials the uniform soup takes.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the training photos for BatchNorm, and the people of the bootstrap.")] = 0,
) -> None:
    """Average the weights of like trials into one network that costs at inference what one trial does.

    Trials are alike when their networks have the same tensors, see the same view, predict the same task and began from the same
    pretrained weights: networks that began at random have no mean worth having. Of each group of like trials, [bold]uniform[/] takes
    the best few; [bold]greedy[/] tries all, best first, and keeps each one with which the soup's validation score does not fall.

        python -m analysis.soup --run faces

        python -m analysis.ensemble --run faces --run faces-soup

    The better soup of each group, if it is not below the group's best trial, becomes a trial of a new run, runs/<first run>-soup/.
    """
    with refusals():
        cook_runs(run, top=top, seed=seed)


def cook_runs(names: Sequence[str] | None, *, top: int, seed: int) -> None:
    """Load, group, cook, print, write. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    runs = load_runs(run_folders(names))
    groups, unlike = find_groups(runs.trials)
    left_out = [*runs.left_out, *unlike]
    if not groups:
        _refuse(runs, left_out)
    for item in left_out:
        console.print(f"left out: {item}", style="yellow", markup=False, soft_wrap=True)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    photos, split, views = restore(runs, [group[0] for group in groups], console)
    train = generator(seed, "soup").permutation(split.train)[:MEASURED]
    outcomes = []
    # The best trial alone, the uniform soup, and one try for each further trial.
    with progress_bar("cooking soups", sum(len(group) + 1 for group in groups)) as advance:
        for group in groups:
            view = views[View.of(group[0].record.config.view)]
            with kitchen(group, view, photos.rows[train], photos.rows[split.valid], runs.valid, device) as cook:
                outcomes.append(cook_group(group, _counting(cook, advance), runs.valid, top=top, seed=seed))
    for outcome in outcomes:
        show(console, outcome)
    kept = [outcome for outcome in outcomes if outcome.kept]
    if not kept:
        console.print("No soup is worth keeping: nothing was written.")
        return
    written = write_soups(runs, kept, device)
    told = "Validation chose the ingredients, so a soup's validation score promises too much; the hold-out has the last word"
    asked = " ".join(f"--run {shlex.quote(_called(folder))}" for folder in (*runs.folders, written))
    console.print(f"{told}: python -m analysis.ensemble {asked}", soft_wrap=True)
    console.print(f"Written: {written}", soft_wrap=True)


# Which trials are alike


@dataclass(frozen=True)
class Kind:
    """What networks must share so that the mean of their weights is a network that works."""

    task: Task
    view: View
    weights: tuple[str, ...]  # which each backbone began from
    seed: int | None  # of hidden layers, whose units another seed would put in another order; None: there are none
    scale: float | None  # by which heads multiply cosines; None: they compute none
    colours: tuple[float, ...]  # means and deviations that photos are normalised by
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type and shape


def find_groups(trials: Sequence[Trial]) -> tuple[list[tuple[Trial, ...]], list[LeftOut]]:
    """Groups of two or more like trials, each best on validation first, and the trials that are in none, with the reasons."""
    random, whole, folds, fit = [], [], [], []
    for trial in trials:
        config = trial.record.config
        if config.model.weights == "none":
            random.append(trial)
        elif len(trial.models) > 1:
            folds.append(trial)
        elif config.data.fold == NOBODY:
            whole.append(trial)
        else:
            fit.append(trial)
    alike: dict[Kind, list[Trial]] = {}
    for trial in fit:
        alike.setdefault(kind_of(trial), []).append(trial)
    groups = [tuple(sorted(group, key=lambda trial: -trial.score)) for group in alike.values() if len(group) > 1]
    alone = [group[0] for group in alike.values() if len(group) == 1]
    reasons = {
        "trials began from random weights (model/weights is none), and the mean of such networks is worth nothing": random,
        "configurations have one model for each fold, validated on different people: give the search instead": folds,
        "refits on all data, of which nobody could validate a soup: give the search alone": whole,
        "trials are like no other in tensors, first weights, task and view": alone,
    }
    return groups, [LeftOut(reason, tuple(_described(one) for one in found)) for reason, found in reasons.items() if found]


def kind_of(trial: Trial) -> Kind:
    """What the trial's network is made of and began from."""
    config = trial.record.config
    with local_file(trial.models[0]) as file, safe_open(file, framework="pt") as reader:
        slices = {name: reader.get_slice(name) for name in sorted(reader.keys())}
        tensors = tuple((name, str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items())
        colours = tuple(value for name in ("mean", "std") for value in reader.get_tensor(name).flatten().tolist())
    return Kind(
        task=trial.task,
        view=View.of(config.view),
        weights=first_weights(config.model),
        # Linear heads of any beginning may be averaged: the mean of linear maps gives the mean of their logits.
        seed=config.seed if config.model.hidden else None,
        scale=config.loss.scale if config.loss.name in COSINE else None,
        colours=colours,
        tensors=tensors,
    )


def first_weights(model: ModelConfig) -> tuple[str, ...]:
    """What each backbone began from: a file, or timm's weights of that name."""
    names = [name for name in (model.backbone, model.second) if name]
    if model.weights == "imagenet":
        return tuple(f"imagenet {name}" for name in names)
    return tuple(str(Path(model.weights.replace("{backbone}", name)).resolve()) for name in names)


# One soup


@dataclass(frozen=True, eq=False)
class Soup:
    """One network whose weights are the mean of its ingredients'; of one ingredient it is that trial's own."""

    ingredients: tuple[Trial, ...]  # best first
    tensors: Mapping[str, Tensor]  # on the CPU
    heads: list[np.ndarray]  # validation probabilities (n, classes) float32 per head
    answer: np.ndarray  # joint ones (n, classes of the task's scheme), float64
    score: float  # macro F1 on validation


Cook = Callable[[Sequence[Trial]], Soup]


def mean_tensors(files: Sequence[Path]) -> tuple[dict[str, Tensor], set[str]]:
    """The mean of each tensor over files of weights, in double precision and back, and the names of those that differ.

    Whole numbers, as BatchNorm's count of batches, have no mean: the first file's are taken.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        means, differing = {}, set()
        for name in readers[0].keys():  # noqa: SIM118 - safe_open is no mapping
            first, *others = (reader.get_tensor(name) for reader in readers)
            if not all(torch.equal(first, other) for other in others):
                differing.add(name)
            mean = sum((other.double() for other in others), first.double()) / len(files)
            means[name] = mean.to(first.dtype) if first.is_floating_point() else first
    return means, differing


@torch.no_grad()
def measure_statistics(
    model: Classifier, layers: Sequence[nn.Module], batches: Iterable[Tensor], device: torch.device, precision: torch.dtype
):
    """Give BatchNorm layers the mean and variance of what reaches them, each the plain mean over batches.

    All other layers stay as they are at inference: what dropout does to its inputs is not what the layers will see.

    Args:
        batches: photos (n, height, width, channels) uint8.
    """
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        # Not a moving average: every batch counts alike.
        layer.momentum = None
        layer.train()
    for batch in batches:
        with mixed_precision(device, precision):
            model(to_input(batch, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


@contextmanager
def kitchen(
    group: Sequence[Trial], view: np.ndarray, train: np.ndarray, valid: np.ndarray, sample: Sample, device: torch.device
) -> Iterator[Cook]:
    """What cooks soups of like trials.

    BatchNorm layers of a soup are given statistics of its own, measured on training photos without augmentation. Those that are
    equal in all ingredients were frozen, and stay; so a soup of one trial, or of copies of it, is that trial to the bit.

    Args:
        group: the first one's settings build the network.
        view: (rows, height, width, 3) uint8.
        train: rows (m,) to measure by, in an order that says nothing about the photos.
        valid: rows (n,) of the sample's photos.
    """
    with ExitStack() as stack:
        files = {trial: stack.enter_context(local_file(trial.models[0])) for trial in group}
        model, card = load_model(files[group[0]], device)
        settings, edges = card.config.train, card.config.model.sees_edges
        precision, size = choose_precision(settings.precision, device), max(64, settings.batch_size)
        # Batches of one size, since each counts alike.
        whole = train[: max(1, len(train) // size) * size]

        def cook(ingredients: Sequence[Trial]) -> Soup:
            tensors, differing = mean_tensors([files[trial] for trial in ingredients])
            model.load_state_dict(tensors)
            layers = [
                layer
                for name, layer in model.named_modules()
                if isinstance(layer, _BatchNorm) and {f"{name}.running_mean", f"{name}.running_var"} & differing
            ]
            if layers:
                measure_statistics(model, layers, plain_batches(view, whole, size, threads=2, edges=edges), device, precision)
            # The batches of the training loop's validation, so that a single trial gets its own score again.
            heads = predict(model, plain_batches(view, valid, size, threads=2, edges=edges), device, precision)
            answer = card.task.joint_probabilities(heads)
            cooked = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            return Soup(tuple(ingredients), cooked, heads, answer, sample.macro_f1(card.task.scheme, answer))

        yield cook


# Recipes


def uniform(ranked: Sequence[Trial], single: Soup, cook: Cook, top: int) -> Soup:
    """The mean of the `top` best trials."""
    return cook(ranked[:top])


def greedy(ranked: Sequence[Trial], single: Soup, cook: Cook, top: int) -> Soup:
    """All trials are tried, best first; one stays when the validation score does not fall with it."""
    soup = single
    for trial in ranked[1:]:
        tried = cook((*soup.ingredients, trial))
        soup = tried if tried.score >= soup.score else soup
    return soup


# Each makes a soup of ranked trials, of which `single` is the first one's; greedy is never below that.
RECIPES: dict[str, Callable[[Sequence[Trial], Soup, Cook, int], Soup]] = {"greedy": greedy, "uniform": uniform}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a group of like trials."""

    trials: tuple[Trial, ...]  # best first
    single: Soup  # of the best one alone
    soups: Mapping[str, Soup]  # by recipe
    gains: Mapping[str, Gain]
    seconds: float

    @property
    def kept(self) -> str:
        """The recipe whose soup becomes a trial: the better one, if it has several ingredients and is not below the best trial; or ''."""
        worth = [name for name, soup in self.soups.items() if len(soup.ingredients) > 1 and soup.score >= self.single.score]
        return max(worth, key=lambda name: self.soups[name].score, default="")


def cook_group(group: tuple[Trial, ...], cook: Cook, sample: Sample, *, top: int, seed: int) -> Outcome:
    """A soup by each recipe.

    Args:
        seed: of the bootstrap.
    """
    start = perf_counter()
    single = cook(group[:1])
    soups = {name: recipe(group, single, cook, top) for name, recipe in RECIPES.items()}
    gains = {name: gain(soup, single, sample, seed) for name, soup in soups.items()}
    return Outcome(group, single, soups, gains, perf_counter() - start)


def gain(soup: Soup, single: Soup, sample: Sample, seed: int) -> Gain:
    """The soup's gain over one trial; the seed draws the people."""
    scheme = single.ingredients[0].task.scheme
    truth = sample.classes(scheme)
    ours, its = (person_counts(truth, one.answer.argmax(axis=1), sample.people, scheme.classes) for one in (soup, single))
    return paired_gain(ours, its, generator(seed, "bootstrap"))


# The photos, and what is printed


def restore(runs: Runs, trials: Sequence[Trial], console: Console) -> tuple[Photos, Split, dict[View, np.ndarray]]:
    """The photos, proven to be those of the runs, their split, and the views of these trials. Raises: RunError, DataError."""
    settings = trials[0].record.config.data
    views = list(dict.fromkeys(View.of(trial.record.config.view) for trial in trials))
    found = read_photos(data_folder(runs), settings)
    files = decode(found, views)
    if files.faceless:
        console.print(files.faceless_words(len(found.ids)), style="yellow", markup=False, soft_wrap=True)
    photos, split = restore_split(runs.folders[0], runs.cards[0], found.without(files.bad), files.digests, settings.fold)
    return photos, split, {view: open_view(files.files[view]) for view in views}


def show(console: Console, outcome: Outcome) -> None:
    """The ingredients with their scores, the soups, and which one is kept."""
    table = Table(title=f"Like trials: {_words(outcome.trials[0])}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("trial", overflow="fold")
    table.add_column("validation\nmacro F1", justify="right")
    for name in outcome.soups:
        table.add_column(f"in {name}", justify="center")
    table.add_column("gain over the best trial (95 %)", justify="right")
    for trial in outcome.trials:
        table.add_row(trial.name, f"{trial.score:.4f}", *("x" if trial in soup.ingredients else "" for soup in outcome.soups.values()), "")
    for name, soup in outcome.soups.items():
        counts = [str(len(soup.ingredients)) if other == name else "" for other in outcome.soups]
        low, high = outcome.gains[name].interval
        words = f"{outcome.gains[name].gain:+.4f} ({low:+.4f} to {high:+.4f})" if len(soup.ingredients) > 1 else "the best trial alone"
        table.add_row(f"{name} soup", f"{soup.score:.4f}", *counts, words, style="bold" if name == outcome.kept else None)
    console.print(table)
    best = outcome.trials[0].name
    fate = f"The {outcome.kept} soup is kept" if outcome.kept else f"No soup of several trials reaches {best}, so none is kept"
    console.print(f"{fate}. {outcome.seconds:.0f} seconds.", markup=False)


def _counting(cook: Cook, advance: Callable[[int], None]) -> Cook:
    def counted(ingredients: Sequence[Trial]) -> Soup:
        soup = cook(ingredients)
        advance(1)
        return soup

    return counted


def _refuse(runs: Runs, left_out: Sequence[LeftOut]) -> NoReturn:
    there = "\n".join(f"  {item}" for item in left_out)
    names = ", ".join(folder.resolve().name for folder in runs.folders)
    mend = "Search with pretrained weights (model/weights imagenet or a file), one backbone, view and task for several trials."
    raise RunError(f"{names}: no two trials are alike, so there is nothing to average:\n{there}\n{mend}")


def _described(trial: Trial) -> str:
    return f"{trial.name} ({_words(trial)})"


def _words(trial: Trial) -> str:
    """What a trial's network is: `resnet10t, joint, 80x60, from faces.safetensors`."""
    config, view = trial.record.config, View.of(trial.record.config.view)
    backbones = " and ".join(filter(None, (config.model.backbone, config.model.second)))
    began = config.model.weights if config.model.weights in ("imagenet", "none") else Path(config.model.weights).name
    return f"{backbones}, {task_words(trial)}, {view}, from {began.replace('{backbone}', config.model.backbone)}"


def _called(folder: Folder) -> str:
    """What `--run` takes for a run."""
    return folder.name if folder.resolve().parent == RUNS.resolve() else str(folder)


# The run of soups


def write_soups(runs: Runs, outcomes: Sequence[Outcome], device: torch.device) -> Folder:
    """The kept soups as trials of a new run beside the first one; returns its folder.

    A soup has the settings of its best ingredient, which build its network, and one report; what it is made of stands in its result.
    """
    searched = runs.folders[0]
    run = new_folder(searched.resolve().parent, f"{searched.resolve().name}-soup")
    for file in (SPLIT, EXTRA):
        if (searched / file).is_file():
            write_whole(run / file, (searched / file).read_bytes())
    for number, outcome in enumerate(outcomes):
        write_soup(trial_folder(run, number), outcome, runs, device)
    # Last: from here on it is a run, and all its trials are there.
    write_run(run, card_of(runs.cards[0], run.name, outcomes))
    return run


def new_folder(runs: Folder, name: str) -> Folder:
    """A folder of this name, or with the first number behind it that is free; it is made at once, so that no other command takes it."""
    for number in count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def write_soup(folder: Folder, outcome: Outcome, runs: Runs, device: torch.device) -> None:
    """The record of a group's kept soup."""
    soup, best = outcome.soups[outcome.kept], outcome.trials[0]
    config, epoch = best.record.config, best.record.best["epoch"]
    with local_file(best.models[0]) as file:
        model, _ = load_model(file)
    model.load_state_dict(soup.tensors)
    scheme = best.task.scheme
    truth, predicted = runs.valid.classes(scheme), soup.answer.argmax(axis=1)
    report = {
        "epoch": epoch,
        "macro_f1": soup.score,
        "accuracy": float(accuracy(confusion(truth, predicted, scheme.classes))),
        "attribute_f1": attribute_f1(scheme, truth, predicted),
        "seconds": outcome.seconds,
        "best_epoch": epoch,
        "last": True,
    }
    result = Result(
        "finished",
        f"a {outcome.kept} soup of {len(soup.ingredients)} trials; not trained",
        epoch,
        runs.cards[0].split,
        device_name(device),
        code_version(),
        versions(),
        threads=torch.get_num_threads(),
        notes=(
            f"the mean of the weights of {', '.join(trial.name for trial in soup.ingredients)}",
            f"settings and epoch are those of {best.name}",
            "its validation score chose its ingredients",
        ),
    )
    start_record(folder, config)
    write_whole(folder / MODEL, pack_model(model, Card(config, runs.scheme, epoch)))
    write_predictions(folder, Predictions(runs.valid.ids, soup.heads, epoch))
    write_reports(folder, [report])
    write_result(folder, result)


def card_of(card: RunCard, name: str, outcomes: Sequence[Outcome]) -> RunCard:
    """What the soups share. They are no refit: nothing was trained again."""
    predicts = {outcome.trials[0].task.scheme.names for outcome in outcomes}
    return replace(
        card,
        name=name,
        epochs=max(outcome.trials[0].record.config.epochs for outcome in outcomes),
        trials=len(outcomes),
        command=shlex.join(["python", "-m", "analysis.soup", *sys.argv[1:]]),
        predicts=predicts.pop() if len(predicts) == 1 else (),
        cpus_per_trial=None,
        gpus_per_trial=None,
        refit_of="",
        origins=(),
    )


if __name__ == "__main__":
    app(prog_name="python -m analysis.soup")
