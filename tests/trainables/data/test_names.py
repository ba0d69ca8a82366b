import os

import pytest

from trainables.data.names import look_alikes, no_text, shown, some, with_control_characters

LATIN_1 = os.fsdecode("café.jpg".encode("latin-1"))


def test_bytes_that_are_no_utf_8_are_found_and_shown():
    assert no_text(["café.jpg", LATIN_1, "홍.png"]) == [LATIN_1]
    assert shown(LATIN_1) == r"caf\xe9.jpg" and some([LATIN_1, "b"]) == r"caf\xe9.jpg, b"


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028", "\u2029"])
def test_control_characters_and_line_breaks_are_found_and_shown_in_one_line(character):
    name = f"a{character}b"
    assert with_control_characters(["a b", name, "é ü"]) == [name]
    assert shown(name) == name.encode("unicode_escape").decode() and shown(name).isprintable()


@pytest.mark.parametrize("twin", ["cat ", " cat", "c\u200bat", "cat\u00a0", "cat\ufeff"])
def test_names_that_look_the_same_are_found(twin):
    assert look_alikes(["cat", "dog", twin, "dog"]) == [("cat", twin)]


def test_an_accent_composed_in_two_ways_looks_the_same_and_other_names_do_not():
    assert look_alikes(["e\u0301mu", "\u00e9mu", "emu", "Emu", "two  words", "two words"]) == [
        ("e\u0301mu", "\u00e9mu"),
        ("two  words", "two words"),
    ]
