"""What follows a search: its finalists are raced, and the answer is given."""

from dataclasses import replace
from time import perf_counter

from rich.console import Console
from rich.text import Text

from trainables.record import RunError, ranked, read_records, read_run
from tuner.board import clock
from tuner.budget import BEGIN, Division, seconds_of_a_prediction
from tuner.cli import Options, Start
from tuner.prepare import Plan
from tuner.racing import is_over, race_held
from tuner.runs import race_command, vote_command


def conclude(plan: Plan, options: Options, division: Division | None, began: float, console: Console, start: Start) -> int:
    """Race the finalists and give the answer, as far as the settings ask for it. Returns the command's exit code.

    Args:
        division: of the time budget; None: there is none.
        began: when the command began, by `perf_counter`.
        start: answers with the cluster that is there.
    """
    run, settings, card = plan.run, plan.settings, read_run(plan.run)
    best_first = ranked(read_records(run), settings.score().sign)
    if not best_first:
        return 0
    code, left = 0, None

    def vote(finalists: int) -> float:
        return division.vote(seconds_of_a_prediction(best_first), raced=finalists) if division else 0.0

    def after(finalists: int) -> float:
        return vote(max(finalists, 1)) - vote(1)

    if division:
        left = division.budget - (perf_counter() - began) - vote(1)
    try:
        if settings.finalists and not is_over(run, card, settings.finalists):
            if left is not None and left < BEGIN:
                raise RunError(f"the time budget has {clock(max(0.0, left))} left for it; race them with {race_command(run)}")
            within = replace(options, time_budget=left)
            code = race_held(run, card, settings.finalists, within, console, start, after=after, known_images=True)
    except RunError as error:
        console.print(f"No race of finalists: {error}", highlight=False, markup=False, soft_wrap=True)
        if not settings.answer:
            console.print(Text.assemble("Next: ", (vote_command(run, len(best_first)), "bold")), soft_wrap=True)
    if settings.answer and not code:
        from analysis.ensemble.__main__ import answer

        answer(run)
    return code
