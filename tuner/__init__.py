"""Which trial comes next: the search over a space, on Ray Tune.

Ray reads these variables when it is first imported, so they are set here, before any module of ours imports it.
"""

import os

# Under `uv run` Ray would pack the folder and set up a second environment for its workers; ours serves them.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# A training thread may need longer than Ray's 2 seconds to unwind; until then its worker must not take the next trial.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
# Records and TensorBoard files are the trials' own; Ray's loggers would write them a second time and keep every trial in memory.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Tune's own state of the search serves a resume that we do not use, and grows with the number of trials.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")
# Ctrl-C is ours to handle (tuner/stoppers/soft_stop.py).
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# A trial that fails reports why, and no score; Tune would end the whole search over that.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# A weights file is named from the folder in which the command was given; Ray would move each trial to one of its own.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
# Threads of a trial that wait for each other by spinning crawl as soon as anything else needs their core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Usage statistics are off: Ray would report to its makers every hour what is searched for, and on what.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# One table is printed, and it is ours.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
