from __future__ import annotations

import pytest

from homebody.core.media import flat_html, open_graph

LONG = "A paragraph that is long enough to say something"


@pytest.mark.parametrize(
    ("page", "name", "text"),
    [
        ("<title>a <b> c</title>", "og:title", "a <b> c"),
        ("<TITLE>a</TITLE ><h1>b</h1>", "og:title", "a"),
        ("<div><h1>a <i>b</i></h1></div>", "og:title", "a b"),
        ('<meta property="og:title" content="a > b">', "og:title", "a > b"),
        ("<meta property='og:title' content='a \"<p>\" b'>", "og:title", 'a "<p>" b'),
        ("<meta name=x content=it's><title>that's it</title>", "og:title", "that's it"),
        ("<meta property = og:title content = a/b>", "og:title", "a/b"),
        ("<!-- <title>no</title> --><title>yes</title>", "og:title", "yes"),
        ("<script>'<title>no</title>'</script><title>yes</title>", "og:title", "yes"),
        ("<scripting><title>yes</title>", "og:title", "yes"),
        ("<textarea><title>no</title></textarea><title>yes</title>", "og:title", "yes"),
        (f"<p>{LONG}, <b>bold</b> too<div>and no more", "og:description", f"{LONG}, bold too"),
        (f"<p>{LONG}<p>and no more", "og:description", LONG),
        (f"<table><td><p>{LONG}</table>and no more", "og:description", LONG),
        (f"<nav><p>{LONG} here</nav><p>{LONG}", "og:description", LONG),
        (f"<svg><text>no</text></svg><p>{LONG}", "og:description", LONG),
        (f"<base href=/a/><link rel=image_src href=b><p>{LONG}", "og:image", "http://x.y/a/b"),
        (f"1 < 2 <3 </ <> <p>{LONG} 1 < 2", "og:description", f"{LONG} 1 < 2"),
    ],
)
def test_a_page_says_the_same_when_it_is_flat(page: str, name: str, text: str) -> None:
    assert open_graph.read(page.encode(), "text/html; charset=utf-8", "http://x.y/")[name] == text


def test_what_comes_after_more_elements_than_pages_have_is_still_read() -> None:
    page = "<div><svg><b>" * 5000 + f"<title>Deep</title><p>{LONG}</p>"

    found = open_graph.read(page.encode(), "text/html", "http://x.y/")

    assert found["og:title"] == "Deep"


def test_what_is_never_closed_is_not_opened_again_in_each_paragraph() -> None:
    letters = "".join(f"<b a={number}>" for number in range(2000))
    page = f"<p>{letters}</p>" + "<p>x</p>" * 2000  # 4 million elements, and 1.4 GB, to a browser

    flat = flat_html.flatten(page)

    assert flat == "<p></p>" + "<p>x</p>" * 2000
