import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import globs, property_paths, push_conditions


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", ""),
        ("*", ""),
        ("*", "two\nlines"),
        ("lunc?*", "lunch plans"),
        ("lunc?*", "lunch"),
        ("a*b*a", "aba"),
        ("*a?c*", "xxabcyy"),
        ("**", "x"),
        (r"a.c\?", "a.c\\!"),
        ("???", "abc"),
    ],
)
def test_a_glob_matches_the_whole_text(pattern: str, text: str) -> None:
    assert globs.Glob(pattern).matches(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "x"),
        ("?", ""),
        ("lunc?*", " lunch"),
        ("lunc?*", "lunc"),
        ("a*b*a", "aab"),
        ("aba*aba", "aba"),
        ("a.c", "abc"),
        ("[ab]", "a"),
    ],
)
def test_a_glob_does_not_match_less_or_more(pattern: str, text: str) -> None:
    assert not globs.Glob(pattern).matches(text)


def test_a_question_mark_can_stand_for_itself() -> None:
    assert globs.Glob("what?*", "*").matches("what? nothing")
    assert not globs.Glob("what?*", "*").matches("whatever")


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_globs_match_what_the_obvious_regular_expression_matches(pattern: str, text: str) -> None:
    obvious = pattern.replace("*", ".*").replace("?", ".")

    assert globs.Glob(pattern).matches(text) == bool(re.fullmatch(obvious, text))


@given(st.text("ab *?", min_size=1, max_size=6), st.text("ab ", max_size=8))
def test_words_match_what_any_part_between_boundaries_matches(pattern: str, text: str) -> None:
    def is_boundary(at: int) -> bool:
        return " " in text[max(at - 1, 0) : at + 1] or at in {0, len(text)}

    places = [at for at in range(len(text) + 1) if is_boundary(at)]

    expected = any(
        globs.Glob(pattern).matches(text[start:end])
        for start in places
        for end in places
        if start <= end
    )

    assert globs.Glob(pattern).matches_words_of(text) == expected


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*a" * 30 + "b", "a" * 20_000),
        ("?" * 250 + "b", "a " * 20_000),
        ("a?" * 60 + "b", "a " * 20_000),
        ("a*b*c*d", "a b c " * 5_000),
    ],
)
def test_no_pattern_takes_long_on_any_text(pattern: str, text: str) -> None:
    # Each of them, tried place by place and way by way, would outlast the test's time limit.
    assert not globs.Glob(pattern).matches(text)
    assert not globs.Glob(pattern).matches_words_of(text)


@given(
    st.lists(st.text("abç*?", max_size=6), max_size=4),
    st.text("abçd\n?", max_size=8),
)
def test_many_patterns_together_match_what_each_of_them_matches(
    patterns: list[str], text: str
) -> None:
    expected = any(globs.Glob(pattern, "*").matches(text) for pattern in patterns)

    assert globs.AnyOf(patterns).matches(text) == expected


@given(st.text("aé ?", max_size=5), st.text("aéь ", max_size=10), st.booleans())
def test_rare_and_frequent_characters_are_found_alike(
    pattern: str,
    text: str,
    is_long: bool,
) -> None:
    many = "".join(chr(0x4E00 + number) for number in range(300))  # more than have a byte
    one = globs.Text(f"{text} {many * 2} {text}" if is_long else text)

    assert [one.places(it).bit_count() for it in "aéь丂"] == [one.text.count(it) for it in "aéь丂"]
    words = globs.Glob(pattern or "x")
    assert not words.matches_words_of(text) or words.matches_words_of(one)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", "m\\foo")),
        (r"content.\x", ("content", "\\x")),
        ("a..b", ("a", "", "b")),
        (r"a\\.b", ("a\\", "b")),
        ("a\\", ("a\\",)),
        ("", ("",)),
    ],
)
def test_only_dots_and_backslashes_are_escaped_in_paths(text: str, path: tuple[str, ...]) -> None:
    assert property_paths.parse(text) == path


def test_a_path_ends_where_there_is_no_object() -> None:
    event = {"content": {"a": None, "list": ["x"]}}

    assert push_conditions.value_at(event, ("content", "a")) is None
    assert push_conditions.value_at(event, ("content", "a", "b")) is push_conditions.MISSING
    assert push_conditions.value_at(event, ("content", "list", "0")) is push_conditions.MISSING
