"""The report, section by section."""

import re
from collections.abc import Iterator, Sequence

from analysis.evaluation.search.reading import Search
from analysis.pages.parts import Heading, Part, Section
from analysis.report.answer import read_scores
from analysis.report.topics.advice import advice_parts
from analysis.report.topics.answer import answer_parts
from analysis.report.topics.findings import (
    calibration_parts,
    leaks_parts,
    look_parts,
    mistakes_parts,
    settings_parts,
    shift_parts,
    suspects_parts,
)
from analysis.report.topics.search import TOPICS, Run, Topic


def report(searches: Sequence[Search]) -> list[Section]:
    """All sections. The answer and what was found out about it are of the first run."""
    runs = [Run(search, suffix) for search, suffix in zip(searches, _suffixes([search.name for search in searches]), strict=True)]
    damaged = [f"{search.name}: {item}" for search in searches for item in search.damaged]
    first, found = searches[0], []
    scores = read_scores(first.folder, found)
    sections = [Section("answer", "The answer", tuple(answer_parts(first, scores, found)))]
    sections.append(Section("advice", "What would help most", tuple(advice_parts(first, found))))
    sections += [Section(name, title, tuple(_each(runs, topic))) for name, (title, topic) in TOPICS.items()]
    sections.append(Section("calibration", "Calibration", tuple(calibration_parts(first, scores))))
    sections.append(Section("mistakes", "Where it is wrong", tuple(mistakes_parts(first, found))))
    sections.append(Section("shift", "Prior shift", tuple(shift_parts(first, scores))))
    sections.append(Section("look", "The images", tuple(look_parts(first, found))))
    sections.append(Section("suspects", "Label issues", tuple(suspects_parts(first, found))))
    sections.append(Section("leaks", "Leaks", tuple(leaks_parts(first, found))))
    damaged += [f"{first.name}: {item}" for item in found]
    sections.append(Section("settings", "Settings and versions", tuple(settings_parts(runs, scores, damaged))))
    return sections


def _suffixes(names: Sequence[str]) -> list[str]:
    """What the pictures of several runs differ by, in names of files and ids of a page; nothing for one run."""
    if len(names) == 1:
        return [""]
    plain = [re.sub(r"[^\w.-]", "_", name) for name in names]
    return [f"-{name}" if plain.count(name) == 1 else f"-{name}-{place}" for place, name in enumerate(plain, start=1)]


def _each(runs: Sequence[Run], topic: Topic) -> Iterator[Part]:
    for run in runs:
        if run.suffix:
            yield Heading(run.search.name)
        yield from topic(run)
