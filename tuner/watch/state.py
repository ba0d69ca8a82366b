"""What the page shows of a run, as plain values: from its records, and from what its search says of this moment."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from time import monotonic, time
from typing import Any

from analysis.evaluation.search.reading import STATES, damage, is_finite, lenient
from analysis.evaluation.search.summary import answer_of
from search_spaces.errors import UserError
from search_spaces.read import read_space
from search_spaces.schema import Choice, Space, show
from trainables.baseline import baseline_of, is_baseline
from trainables.commands import started, typed
from trainables.config import choosers
from trainables.metrics import BY_NAME
from trainables.record import BASELINE, DAMAGE, FINALISTS, SPACE, Record, list_trials, name_of, read_json, read_record, read_run
from trainables.storage import Folder, local_file
from tuner.board import differs
from tuner.live import Moment, read_live
from tuner.lock import holder
from tuner.requests import OF_A_TRIAL, REQUEST, Request, pending
from tuner.watch.machine import Machine

FILES = ("config.json", "reports.jsonl", "result.json", OF_A_TRIAL)  # of a trial; what the page shows is in them
EVERY_IN_STORE = 10.0  # seconds between two readings of a run in an object store


class Watched:
    """A run that is looked at again and again, from several threads: trials whose files did not change are read once."""

    def __init__(self, run: Folder):
        self.run = run
        self._machine = Machine()
        self._lock = Lock()
        self._trials: dict[str, tuple[tuple, dict[str, Any]]] = {}
        self._space: tuple[tuple, Space | None, list[str]] = ((), None, [])
        self._read: tuple[float, dict[str, Any]] = (-EVERY_IN_STORE, {})

    def state(self) -> dict[str, Any]:
        """How the run stands now, as JSON takes it; a run that has no run.json yet is being prepared."""
        with self._lock:
            if isinstance(self.run, Path) or monotonic() - self._read[0] > EVERY_IN_STORE:
                self._read = monotonic(), self._state()
            return {**self._read[1], "machine": asdict(self._machine.use())}

    def _state(self) -> dict[str, Any]:
        who, moment, race = holder(self.run), read_live(self.run), read_live(self.run / FINALISTS)
        resume = typed(f"tuner.run --resume {name_of(self.run)}")
        always = {"name": self.run.name, "folder": str(self.run), "searched_by": who, "resume": resume}
        try:
            card = read_run(self.run)
        except UserError:
            return {**always, "preparing": True}
        if who is None:
            moment = None  # its process died
        damaged: list[str] = []
        space = self._the_space(damaged)
        asked, unread = pending(self.run)
        trials = self._all_trials(space, moment, list(asked.values()), damaged)
        metric = BY_NAME.get(card.metric)
        waiting = [one for one in asked.values() if one.kind == "enqueue" and one.trial is None]
        scored = [trial for trial in trials if trial["best"] is not None]
        sign = metric.sign if metric else 1
        best = max(scored, key=lambda trial: (sign * trial["best"], -trial["number"]), default=None)
        return {
            **always,
            "preparing": False,
            "refit_of": card.refit_of,
            "space": card.space,
            "data": card.data,
            "metric": metric.title if metric else card.metric,
            "higher_is_better": sign > 0,
            "planned": card.trials,
            "epochs": card.epochs,
            "counts": {state: sum(trial["state"] == state for trial in trials) for state in ("running", *STATES)},
            "seconds_left": moment.seconds_left if moment else None,
            "notes": [*(moment.notes if moment else ()), *([f"finalists: {race.words}"] if who and race else [])],
            "best": best and {"trial": best["number"], "score": best["best"]},
            "baseline": next((trial["number"] for trial in trials if trial["baseline"]), None),
            "gain": self._gain(best, damaged),
            "answer": lenient(self.run, "ensemble/scores.json", lambda file: answer_of(read_json(file, "scores")), None, damaged),
            "trials": trials,
            "waiting": [{"values": _words(one.values), "by": one.by} for one in waiting],
            "parameters": _parameters(space),
            "damaged": damaged + [f"requests/{file.name} ({why})" for file, why in unread.items()],
            "dashboard": self._dashboard(),
        }

    def _all_trials(self, space: Space | None, moment: Moment | None, asked: list[Request], damaged: list[str]) -> list[dict[str, Any]]:
        running = {one.trial: one for one in moment.running} if moment else {}
        found = []
        for folder in list_trials(self.run):
            try:
                trial = dict(self._trial(folder, space))
            except DAMAGE as error:
                damaged.append(damage(f"trials/{folder.name}", error))
                continue
            number = trial["number"]
            if number in running:
                trial |= {"state": "running", "reason": "", "place": running[number].place, "running": time() - running[number].since}
            trial["asked"] = [request.kind for request in asked if request.trial == number and request.kind != "enqueue"]
            found.append(trial)
        return found

    def _trial(self, folder: Folder, space: Space | None) -> dict[str, Any]:
        stamp = _stamp(folder, FILES) + (id(space),)
        known = self._trials.get(folder.name)
        if known is None or known[0] != stamp or not isinstance(folder, Path):
            known = self._trials[folder.name] = stamp, _trial_of(read_record(folder), space)
        return known[1]

    def _the_space(self, damaged: list[str]) -> Space | None:
        stamp = _stamp(self.run, (SPACE,))
        if self._space[0] != stamp or not isinstance(self.run, Path):
            flaws: list[str] = []
            self._space = stamp, lenient(self.run, SPACE, _read_space, None, flaws), flaws
        damaged += self._space[2]
        return self._space[1]

    def _gain(self, best: Mapping[str, Any] | None, damaged: list[str]) -> dict[str, Any] | None:
        """What the best trial gains over the baseline, where that has been computed of this very trial."""
        found = lenient(self.run, BASELINE, lambda file: read_json(file, "baseline"), None, damaged)
        if not found or not best or "gain" not in found or found["best"].rpartition("/")[2] != str(best["number"]):
            return None
        return {"gain": found["gain"], "interval": found["gain_interval"], "significant": found["distinguishable"]}

    def _dashboard(self) -> str:
        """The command that shows the same run in Optuna's dashboard; empty where there is no journal."""
        from tuner.searchers.journal import JOURNAL  # Optuna takes a second

        return started(f"optuna-dashboard {self.run / JOURNAL}") if (self.run / JOURNAL).is_file() else ""


def _stamp(folder: Folder, names: tuple[str, ...]) -> tuple:
    """What changes when one of the files does."""
    found = []
    for name in names:
        with suppress(OSError):
            if isinstance(folder, Path):
                stat = (folder / name).stat()
                found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def _read_space(file: Folder) -> Space:
    with local_file(file) as local:
        return read_space(local, choosers=choosers())


def _trial_of(record: Record, space: Space | None) -> dict[str, Any]:
    curve = [[report["epoch"], report["score"]] for report in record.reports if is_finite(report["score"])]
    drawn = space.drawn(record.config.values()) if space and not record.config.model.is_probe else {}
    best = record.best.get("score")
    return {
        "number": record.number,
        "state": record.result.state,
        "reason": record.result.reason,
        "epoch": len(record.reports),
        "epochs": record.config.epochs,
        "score": curve[-1][1] if curve else None,
        "best": best if is_finite(best) else None,
        "curve": curve,
        "seconds": record.seconds,
        "device": record.result.device,
        "settings": differs(space, record.config.values()) if space else record.config.model.backbone,
        "values": _words(drawn),
        "baseline": bool(space) and is_baseline(record.config, baseline_of(space)),
        "by": _asked_by(record.folder),
        "place": "",
    }


def _asked_by(folder: Folder) -> str:
    file = folder / OF_A_TRIAL
    with suppress(*DAMAGE):
        return REQUEST.validate_json(file.read_bytes()).by if file.is_file() else ""
    return ""


def _parameters(space: Space | None) -> list[dict[str, Any]]:
    """What may be proposed: each searched setting, what it can be, and when it is drawn."""
    return [
        {
            "path": parameter.path,
            "choices": list(map(show, parameter.domain.values)) if isinstance(parameter.domain, Choice) else [],
            "can_be": parameter.domain.describe(),
            "when": " and ".join(f"{path} is {' or '.join(map(show, allowed))}" for path, allowed in parameter.when),
        }
        for parameter in (space.parameters if space else ())
    ]


def _words(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {path: show(value) for path, value in (values or {}).items()}
