"""`python -m tuner.look --data photos`: what there is to learn from, before anything is searched."""

from typing import Annotated

import typer

from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import Data, Group, LabelPattern, LayoutName, NumberColumn, Options, TagColumns, Target, carry_out, data_changes, seconds

READING = 300.0  # seconds


def main(
    data: Data = None,
    target: Target = None,
    tags: TagColumns = None,
    number: NumberColumn = None,
    group: Group = None,
    label_pattern: LabelPattern = None,
    layout: LayoutName = None,
    space: Annotated[str | None, typer.Option(help="A space whose section data says how the images are read.")] = None,
    run: Annotated[
        str | None, typer.Option(help="A run, whose images are looked at as it read them; its report then shows what was found.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="How the data is read: data/ordinal=years. Repeatable.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Images whose pixels are read, at most: a random sample where there are more.")] = 10_000,
    time_budget: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="Read pixels for so long, at most: 90s, 20m. Default: 5m.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the sample, and the images that are shown.")] = 0,
    out: Annotated[str | None, typer.Option(help="Folder of the page. Default: look/<name of the data>, or RUN/look.")] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Look at images and labels before a search: one page of counts, sizes, colours, examples, copies and odd labels.

        python -m tuner.look --data photos

        python -m tuner.look --data labels.csv --target view,sex --number age --group patientid

        python -m tuner.look --run faces

    The data options are those of tuner.run. Nothing is trained. All labels are counted; pixels are read of --most images and for
    --time-budget, in random order, and the page says of how many. It holds small copies of images: share it as you would share these.

    The folder gets index.html, look.json with all that was found, and pairs.csv of images that look the same. Exit codes: 0 done, whatever
    was found; 2 a mistake to correct; 130 stopped, and nothing was written.
    """
    short = {"target": target, "tags": tags, "number": number, "group": group, "label_pattern": label_pattern, "layout": layout}
    options = Options(
        data=data, space=space, resume=run, changes=(*(changes or ()), *data_changes(short)), time_budget=time_budget or READING, seed=seed
    )
    console = output()

    def work(start: object) -> int:
        from tuner.looking import look

        look(options, console, most=most, out=out)
        return 0

    carry_out(work, console, address=None, dashboard=False)


if __name__ == "__main__":
    launch(main, "tuner.look")
