"""Every row of the reference task's checklist is something that this does, with a test of it, or is left out with a reason."""

import ast
import re
import shlex
from functools import cache

import pytest

from tests.conftest import ROOT
from tests.reference_rows import LEARNS, REPORTS, ROWS, page
from tests.test_documents import parsed
from tests.test_reference_techniques import TECHNIQUES
from trainables.commands import COMMANDS

SETTINGS = {row for row in TECHNIQUES if row.startswith("S")}
# A command alone, without options, is a name of it.
WITH_OPTIONS = sorted({text for row in ROWS.values() for text in re.findall(r"`(\S+ [^`]+)`", row.how) if text.split()[0] in COMMANDS})


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_rows_are_there():
    assert list(ROWS) == [f"{report}-{number}" for report, count in REPORTS.items() for number in range(1, count + 1)]
    assert len(ROWS) == 147 and {*ROWS} >= SETTINGS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_settings_or_a_command_and_a_test_or_a_reason(name):
    row = ROWS[name]
    if row.left_out:
        assert not row.how and not row.test and name not in SETTINGS
    else:
        assert (row.how and row.test) or name in SETTINGS
        file, function = (row.test or LEARNS).split("::")
        assert function in functions(file)


def test_few_are_left_out():
    assert len([row for row in ROWS.values() if row.left_out]) < 6


@pytest.mark.parametrize("text", WITH_OPTIONS)
def test_a_command_has_the_options_that_it_is_named_with(text):
    parsed(["sweepvote", *shlex.split(text)])


def test_the_page_is_the_table():
    assert (ROOT / "docs" / "techniques.md").read_text() == "\n".join(page()) + "\n"
