"""`python -m tuner.draw_masks --data photos --target mask --from absent --to worn --out made`: further faces with masks, to train on."""

from typing import Annotated

import typer

from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import Data, Group, LabelPattern, LayoutName, Options, carry_out, data_changes


def main(
    target: Annotated[str, typer.Option(metavar="NAME", help="The target whose class a drawn mask changes.")],
    before: Annotated[str, typer.Option("--from", metavar="CLASS", help="Its class on the images that masks are drawn on.")],
    after: Annotated[str, typer.Option("--to", metavar="CLASS", help="Its class once a mask is drawn.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the images and their table go; it must not exist yet.")],
    data: Data = None,
    run: Annotated[str | None, typer.Option(help="A run: its images as it read them, without those of its hold-out.")] = None,
    nose_free: Annotated[
        bool, typer.Option("--nose-free", help="Leave the nose free, as who wears a mask incorrectly; --to is that class.")
    ] = False,
    most: Annotated[int | None, typer.Option(min=1, help="Draw on so many images, at most: a random sample. Default: all.")] = None,
    group: Group = None,
    label_pattern: LabelPattern = None,
    layout: LayoutName = None,
    space: Annotated[str | None, typer.Option(help="A space whose section data says how the images are read.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="How the data is read: data/target=mask. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the sample, and each mask's shape, colour and pattern.")] = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Draw masks on faces that have none, as further images to train on.

        python -m tuner.draw_masks --run faces --target mask --from absent --to worn --out made

        python -m tuner.draw_masks --run faces --target mask --from absent --to incorrect --nose-free --out made-incorrect

        python -m tuner.run --space effnet.yaml --data photos --set 'data/extra=[made/labels.csv, made-incorrect/labels.csv]'

    MTCNN finds the largest face of each image; a mask is laid over it from the nose to the chin. Images without a face, and those that
    cannot be read, are left out and named. The class of --target becomes that of --to, all other labels stay.

    The folder gets labels.csv, which data/extra takes, and its images: each stays in the group of the one that it was made of, so that it
    never trains where that one validates. With --run no image is made of the hold-out, on which a search would refuse it.

    Exit codes: 0 done; 1 no face was found, and nothing was written; 2 a mistake to correct; 130 stopped, and nothing was written.
    """
    short = {"group": group, "label_pattern": label_pattern, "layout": layout}
    options = Options(data=data, space=space, resume=run, changes=(*(changes or ()), *data_changes(short)), seed=seed)
    console = output()

    def work(start: object) -> int:
        from tuner.masking import Wish, draw_masks

        return draw_masks(options, Wish(target, before, after, nose_free, most), out, console)

    carry_out(work, console, address=None, dashboard=False)


if __name__ == "__main__":
    launch(main, "tuner.draw_masks")
