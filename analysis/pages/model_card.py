"""The model card: what an ensemble is, what it is worth for whom, and how to use it, in one Markdown file for people who were not there.

Its numbers are those of scores.json, per_class.csv and mistakes/; nothing is computed again.

Source: Mitchell et al., Model Cards for Model Reporting, FAT* 2019, whose headings it has.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.evaluation.decide import SINGLE, answer_words, step_words
from analysis.evaluation.disaggregated import EACH
from analysis.evaluation.fitted_ensemble import ensemble_hash
from analysis.members.trials import metric_of
from analysis.pages.errors import LARGEST, Subgroup, gathering, headline
from analysis.pages.page import TEMPLATES
from analysis.pages.tables import TOO_SMALL, is_informative, number_range, percent_range, signed
from trainables.data.names import shown, some
from trainables.metrics import METRICS_OF
from trainables.record import read_json, read_run
from trainables.storage import Folder, write_atomically

Rows = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]  # the head of a table, and its rows

CARD = "MODEL_CARD.md"
MOST = 40  # rows of a table
GATHERING = 8  # rows that say where errors gather
# What Markdown takes for its own in a cell: of the rest, a tag, an entity, a link and emphasis at the ends of words.
FORMATTING = re.compile(r"([\\|`*~]|<(?=[a-zA-Z/!?])|&(?=[#\w]+;)|\](?=[(\[])|(?<!\w)_|_(?!\w))")
PARTS = {"learned": "training and validation", "validation": "of these validation", "holdout": "test"}  # as in scores.json
ENVIRONMENT = TEMPLATES.overlay(autoescape=False)  # it is no HTML; `cell` escapes what Markdown would take for some


def write_card(run: Folder) -> Folder:
    """Write the card of a run's ensemble beside it; returns the file. Raises: RunError, one of DAMAGE."""
    file = run / "ensemble" / CARD
    write_atomically(file, model_card(run).encode())
    return file


def model_card(run: Folder) -> str:
    """The card of a run's ensemble, whose scores are of this version. Raises: RunError, one of DAMAGE."""
    folder, card = run / "ensemble", read_run(run)
    scores, metric = read_json(folder / "scores.json", "scores"), metric_of(run, card)
    name, bounds = scores["answer"], metric.bounds
    answer = scores["answers"][name]
    own = METRICS_OF[scores["kind"]][EACH[scores["kind"]]]
    parts = [(words, f"{scores[part]['photos']:,}", f"{scores[part]['people']:,}") for part, words in PARTS.items()]
    used = [step_words(step["name"]) for step in scores["steps"] if step["used"]]
    text = ENVIRONMENT.get_template("pages/model_card.md.jinja").render(
        run=card,
        folder=folder,
        data=_data_name(card.data),
        scores=scores,
        metric=metric,
        kind=scores["kind"],
        targets=[target for target in card.scheme.targets if target.name in scores["attributes"]],
        called=answer_words(name),
        score=_score(answer["score"], answer["interval"], bounds),
        accuracy=answer["accuracy"],
        gain=None if name.startswith(SINGLE) else _gain(answer),
        baseline=scores["baseline"] and _gain(scores["baseline"]),
        steps=used,
        one_file=not any(step.startswith("test-time") for step in used) or not any(model["edges"] for model in scores["models"]),
        price=scores["prices"][name],
        inputs=list(dict.fromkeys((model["view"], model["edges"]) for model in scores["models"])),
        settings=_settings(scores["models"]),
        parts=parts,
        by_target=[_part_row(one, bounds) for one in scores["targets"]],
        by_value=[_part_row(one, own.bounds) for one in scores["values"]],
        value_title=own.title,
        gaps=list(_gaps(scores["values"], own.bounds)),
        counts={target: _count_rows(counts) for target, counts in scores["counts"].items()},
        classes=_classes(folder, scores["kind"]),
        shifts=list(_shifts(scores["shift"])),
        known=_known_errors(run),
        too_small=TOO_SMALL,
        table=table,
        cell=cell,
        some=some,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def cell(text: object) -> str:
    """A text as Markdown shows it, whatever it holds."""
    return FORMATTING.sub(r"\\\1", shown(str(text)))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], names: int = 1, most: int = MOST) -> str:
    """A table of Markdown, whose first columns are names and whose others are numbers; of more rows than `most` the first ones."""
    line = "| {} |".format
    lines = [line(" | ".join(map(cell, head))), line(" | ".join(["---"] * names + ["---:"] * (len(head) - names)))]
    lines += [line(" | ".join(map(cell, row))) for row in rows[:most]]
    rest = f"\n\nand {len(rows) - most:,} more rows." if len(rows) > most else ""
    return "\n".join(lines) + rest


def _score(score: float, interval: Sequence[float] | None, bounds: tuple[float, float]) -> str:
    return f"{score:.3f} (95 % CI {_between(interval, bounds)})"


def _between(interval: Sequence[float] | None, bounds: tuple[float, float]) -> str:
    return TOO_SMALL if interval is None else number_range((interval[0], interval[1]), bounds)


def _gain(values: Mapping[str, Any]) -> str:
    low, high = map(signed, values["gain_interval"])
    return f"{signed(values['gain'])} (95 % CI {low} to {high}), {'significant' if values['distinguishable'] else 'not significant'}"


def _part_row(one: Mapping[str, Any], bounds: tuple[float, float]) -> tuple[str, ...]:
    name = ": ".join(filter(None, (one["target"], one["value"]))) or "all"
    return name, f"{one['photos']:,}", f"{one['people']:,}", f"{one['score']:.3f}", _between(one["interval"], bounds)


def _data_name(data: str) -> str:
    """What the data is called wherever it lies: its folder, or a table in one."""
    *_, folder, last = ("", *re.split(r"[/\\]+", data.rstrip("/\\")))
    return f"{folder}/{last}" if folder and "." in last else last


def _count_rows(counts: Mapping[str, Sequence[float]]) -> list[tuple[str, ...]]:
    return [(value, *(f"{count:,.6g}" for count in three)) for value, three in counts.items()]


def _gaps(found: Sequence[Mapping[str, Any]], bounds: tuple[float, float]) -> Iterator[str]:
    """For each target between which of its values the scores of `by_value` are furthest apart, of those whose interval says something."""
    known = [one for one in found if one["target"] and one["interval"] and is_informative(one["interval"], bounds)]
    told = sorted(known, key=lambda one: one["score"])
    for target in dict.fromkeys(one["target"] for one in found if one["target"]):
        own = [f"{_part(one)} for {one['value']}" for one in told if one["target"] == target]
        if len(own) > 1:
            yield f"{target}: from {own[0]} to {own[-1]}"


def _part(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['score']:.3f} (95 % CI {low:.3f} to {high:.3f})"


def _settings(models: Sequence[Mapping[str, Any]]) -> Rows:
    """Head and rows of the settings that some model does not have as they are by default, a column a model."""
    paths = dict.fromkeys(path for model in models for path in model["settings"])
    rows = [(path, *(json.dumps(model["settings"][path]) if path in model["settings"] else "" for model in models)) for path in paths]
    return ("setting", *(model["name"] for model in models)), rows


def _classes(folder: Folder, kind: str) -> Rows:
    """Head and rows of per_class.csv, with intervals in one column; of more than MOST rows those with the lowest score come first."""
    import pandas as pd

    found = pd.read_csv(io.BytesIO((folder / "per_class.csv").read_bytes()), keep_default_na=False, na_values=[""])
    scored = "mean absolute error" if kind == "number" else "F1"
    shown_as = {"people": "groups", "photos": "images"}
    if len(found) > MOST:
        found = found.sort_values(scored, kind="stable")
    low, high = (found.pop(f"{scored} {end}") for end in ("low", "high"))
    found = found.astype({name: float for name in found.columns[1:] if name not in shown_as})
    bounds = (0.0, float("inf") if kind == "number" else 1.0)
    intervals = [_between(None if start != start else (start, end), bounds) for start, end in zip(low, high, strict=True)]
    rows = [(*map(_figure, values), limits) for values, limits in zip(found.itertuples(index=False), intervals, strict=True)]
    return (*(shown_as.get(name, name) for name in found.columns), f"{scored}: 95 % CI"), rows


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shifts(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for shift in found:
        for place, value in enumerate(shift["values"]):
            share, estimate, limits = (shift[name][place] for name in ("trained", "em", "em_intervals"))
            significant = "significant" if shift["significant"] else "not significant"
            yield f"{shift['attribute']}: {value}", f"{share:.1%}", f"{estimate:.1%}", percent_range(limits), significant


def _known_errors(run: Folder) -> dict[str, Any] | None:
    """What `analysis.mistakes` counted of this very ensemble; None where it has not looked."""
    import pandas as pd

    folder = run / "mistakes"
    if not (folder / "mistakes.json").is_file():
        return None
    found = read_json(folder / "mistakes.json", "mistakes")
    if found.get("ensemble") != ensemble_hash(run / "ensemble"):
        return None
    groups = pd.read_csv(io.BytesIO((folder / "groups.csv").read_bytes()), keep_default_na=False, na_values=[""])
    worst = pd.read_csv(io.BytesIO((folder / "confident.csv").read_bytes()), keep_default_na=False, na_values=[""])
    confused = Counter(f"{true} → {predicted}" for true, predicted in zip(worst["true"], worst["predicted"], strict=True))
    return {
        "headline": headline(found["kind"], found["side"], found["images"], found["groups"], found["rate"]),
        "confused": [(pair, f"{count:,}") for pair, count in confused.most_common()],
        "gathering": gathering(map(Subgroup.of, groups.to_dict("records")), found["kind"], most=GATHERING),
        "largest": LARGEST[found["kind"]],
    }
