"""The command: what would help most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from analysis.command import RunOption, read_runs, refusals, restore, show_left_out, show_written, table
from analysis.evaluation.advice import Advice, Learning, advice_lines, learning_note, write_advice
from analysis.evaluation.answering import choose_device
from analysis.evaluation.ceiling import TargetNoise, ceiling_in
from analysis.evaluation.label_issues import find_suspects
from analysis.evaluation.needs import needs_in
from analysis.evaluation.search.ends import ends_in
from analysis.evaluation.search.reading import read_search
from analysis.members.trials import Runs, Trial
from search_spaces.schema import flat
from trainables.commands import program
from trainables.console import document, output
from trainables.data.images import DataError
from trainables.data.training import Data
from trainables.data.views import View
from trainables.options import AsJson, TrustCode
from trainables.probe_config import as_probe
from trainables.progress import progress_bar, waiting
from trainables.record import Record, RunError, read_json
from trainables.registry import ConfigError

if TYPE_CHECKING:
    import torch

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
TOP = 3  # trials that evaluate the labels of each target


@app.command()
def main(
    run: RunOption = None,
    draws: Annotated[int, typer.Option(min=1, help="How many times each share of the training groups is drawn.")] = 3,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Say what would help most: twice the images, better labels, a wider search space, or images of some classes.

    Linear heads are fitted to frozen features of 12, 25, 50 and 100 % of the training groups, which takes seconds: what twice the groups
    would give is read off the curve. The share of labels that are wrong limits what can be measured. Settings whose best values are at an
    end of their range, and classes of few groups that score low, are named.

        python -m analysis.advise --run faces

    Of several runs, ranges are those of the first. runs/<first run>/advice.json holds it all, and analysis.report shows it.
    """
    with refusals():
        advise(run, draws=draws)


def advise(names: Sequence[str] | None, *, draws: int) -> None:
    """Load, fit, print, write. Raises: RunError, StorageError."""
    console = output()
    runs = read_runs(names)
    best, metric = runs.widest, runs.metric
    learning, rises = _learning(runs, best, draws, console)
    with waiting("comparing labels with predictions"):
        noise = [TargetNoise.of(one) for one in find_suspects(runs, TOP).evaluations] if best.task.scheme.kind != "number" else []
    found = Advice(
        metric=metric.name,
        kind=best.task.scheme.kind,
        trial=best.name,
        score=best.score,
        learning=learning,
        ceiling=ceiling_in(runs, noise),
        ends=ends_in(read_search(runs.folders[0])),
        needs=needs_in(runs, rises),
    )
    console.print(f"The best trial is {best.name}: {metric.title} {best.score:.3f} on validation.", soft_wrap=True, highlight=False)
    for line in advice_lines(found, metric):
        console.print(f"- {line}", soft_wrap=True, highlight=False, markup=False)
    if not isinstance(learning, str):
        rows = [
            (f"{step.share:.1%}", f"{step.groups:,}", f"{step.images:,.0f}", f"{step.score:.3f}", "{:.3f} to {:.3f}".format(*step.interval))
            for step in learning.curve.steps
        ]
        console.print(table(f"Learning curve of {learning.of}", (), ("share", "groups", "images", metric.title, "95 % CI"), rows))
        console.print(learning_note(learning, metric), soft_wrap=True, highlight=False)
    show_left_out(console, runs.left_out)
    written = write_advice(runs.folders[0], found)
    show_written(console, [written])
    document({**read_json(written, "advice"), "files": [written]})


def _learning(runs: Runs, best: Trial, draws: int, console: Console) -> tuple[Learning | str, dict[str, float]]:
    """The learning curve of the best probe, or of a probe of the best trial's backbone; what classes gain from more groups."""
    sign, same = runs.metric.sign, [one for one in (*runs.trials, *runs.unkept) if one.task.scheme == best.task.scheme]
    with_weights = [one for one in same if one.record.config.model.weights != "none"]
    if not with_weights:
        return "no trial's backbone had weights, and features of an untrained one say nothing of what more images would give", {}
    trial = max(with_weights, key=lambda one: (one.record.config.model.is_probe, sign * one.score))
    values = {path: value for path, value in flat(trial.record.config.values()).items() if not path.startswith("labels/")}
    device = choose_device()
    with waiting("importing timm"):
        from analysis.advise.curve import count_fits, learn
        from trainables.loop import DivergedError
    try:
        config = as_probe(values)
        images, split, files = restore(runs, [config], console)
        data = Data.of(images, split, files, with_statistics=False)
        use_threads_of(trial.record, device)
        with progress_bar("fitting heads to shares of the training groups", count_fits(draws)) as advance:
            found = learn(config, data, device, draws, advance)
    except (RunError, DataError, ConfigError, DivergedError) as error:
        return str(error), {}
    if isinstance(found, str):
        return found, {}
    model = config.model
    return Learning(f"linear heads on frozen features of {model.backbone} at {View.of(config.view)}", found.curve), dict(found.rises)


def use_threads_of(record: Record, device: "torch.device") -> None:
    """As many threads of a CPU as the trial had, so that its features are found in the cache."""
    import torch

    if device.type == "cpu" and record.result.threads:
        torch.set_num_threads(record.result.threads)


if __name__ == "__main__":
    app(prog_name=program("analysis.advise"))
