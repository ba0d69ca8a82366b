"""sweepvote: distributed hyper-parameter search for image classifiers that ends in an ensemble one can believe.

    import sweepvote as sv

    run = sv.search("effnet", data="photos", trials=20, time_budget="2h", metric="balanced_accuracy")
    run.trials                            # a DataFrame: settings, scores, states
    vote = run.vote(top=3)                # members, score with its interval, against the best single model and the baseline
    vote.predict(["a.jpg"])               # a DataFrame: class, probabilities
    sv.load("faces").resume(trials="+20")

The same functions are behind `sweepvote search`, `sweepvote vote` ... on the command line.
"""

from search_spaces.errors import UserError
from search_spaces.read import shipped_spaces
from sweepvote.run import Run, load, search
from sweepvote.space import choice
from sweepvote.space import integer as int  # noqa: A004
from sweepvote.space import real as float  # noqa: A004
from sweepvote.vote import Vote

__all__ = ["Run", "UserError", "Vote", "choice", "float", "int", "load", "search", "shipped_spaces"]
