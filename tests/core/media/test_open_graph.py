"""What a page says of itself, in whatever encoding it says it."""

from __future__ import annotations

import codecs

import pytest

from homebody.core.media import open_graph

URL = "https://example.org/"
TEXTS = {
    "big5hkscs": "\u4e2d\u6587\u9801\u9762",
    "cp1251": "\u041f\u0435\u0440\u0432\u044b\u0439",
    "cp1252": "caf\u00e9 \u201cquoted\u201d",
    "cp866": "\u041f\u0435\u0440\u0432\u044b\u0439",
    "cp874": "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "cp932": "\u65e5\u672c\u8a9e \u2460",
    "cp949": "\ud55c\uad6d\uc5b4 \uac02",
    "euc_jp": "\u65e5\u672c\u8a9e",
    "gb18030": "\u4e2d\u6587 \u20ac",
    "iso2022_jp": "\u65e5\u672c\u8a9e",
    "iso8859_15": "100 \u20ac",
    "iso8859_2": "\u0141\u00f3d\u017a",
    "koi8_r": "\u041f\u0435\u0440\u0432\u044b\u0439",
    "mac_roman": "na\u00efve",
    "utf_8": "na\u00efve \u2615",
    "utf_16_be": "na\u00efve \u2615",
    "utf_16_le": "na\u00efve \u2615",
}


def title(page: bytes, charset: str = "") -> str:
    content_type = f"text/html; charset={charset}" if charset else "text/html"
    return open_graph.read(page, content_type, URL)["og:title"]


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        *(("Shift_JIS", "cp932"), ("x-sjis", "cp932"), ("ms932", "cp932"), ("sjis", "cp932")),
        *(("Windows-31J", "cp932"), ("EUC-JP", "euc_jp"), ("x-euc-jp", "euc_jp")),
        *(("csISO2022JP", "iso2022_jp"), ("ISO-2022-JP", "iso2022_jp")),
        *(("euc-kr", "cp949"), ("ks_c_5601-1987", "cp949"), ("windows-949", "cp949")),
        *(("Big5", "big5hkscs"), ("big5-hkscs", "big5hkscs"), ("x-x-big5", "big5hkscs")),
        *(("gb2312", "gb18030"), ("x-gbk", "gb18030"), ("GB18030", "gb18030")),
        *(("windows-1251", "cp1251"), ("x-cp1251", "cp1251"), ("cp1251", "cp1251")),
        *(("koi8_r", "koi8_r"), ("koi", "koi8_r"), ("cp866", "cp866"), ("ibm866", "cp866")),
        *(("latin2", "iso8859_2"), ("l2", "iso8859_2"), ("iso_8859-2:1987", "iso8859_2")),
        *(("iso-8859-1", "cp1252"), ("latin1", "cp1252"), ("us-ascii", "cp1252")),
        *(("iso-8859-15", "iso8859_15"), ("x-mac-roman", "mac_roman"), ("mac", "mac_roman")),
        *(("tis-620", "cp874"), ("iso-8859-11", "cp874"), ("dos-874", "cp874")),
        *(("utf8", "utf_8"), ("unicode-1-1-utf-8", "utf_8"), ("'UTF-8'", "utf_8")),
        *(("utf-16", "utf_16_le"), ("unicode", "utf_16_le"), ("utf-16be", "utf_16_be")),
        *(("x-unknown", "utf_8"), ("x-unknown", "cp1252"), ("", "utf_8"), ("", "cp1252")),
    ],
)
def test_an_encoding_is_known_by_every_name_that_browsers_know(label: str, codec: str) -> None:
    page = f"<title>{TEXTS[codec]}</title>".encode(codec)

    assert title(page, label) == TEXTS[codec]


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        ('<meta http-equiv="Content-Type" content="text/html; charset=x-sjis">', "cp932"),
        ("<meta charset=ks_c_5601-1987>", "cp949"),
        ("<META name=a><meta charset = 'KOI8-R' >", "koi8_r"),
        ("<?xml version='1.0' encoding='windows-1251'?>", "cp1251"),
        ("<?xml version='1.0' encoding='nonsense'?><meta charset=windows-1251>", "cp1251"),
        ("<meta charset=utf-16le>", "utf_8"),
        ("<meta charset=x-user-defined>", "cp1252"),
    ],
)
def test_a_page_may_name_its_encoding_itself(head: str, codec: str) -> None:
    page = f"{head}<title>{TEXTS[codec]}</title>".encode(codec)

    assert title(page) == TEXTS[codec]


@pytest.mark.parametrize(
    ("mark", "codec"),
    [
        (codecs.BOM_UTF8, "utf_8"),
        (codecs.BOM_UTF16_LE, "utf_16_le"),
        (codecs.BOM_UTF16_BE, "utf_16_be"),
    ],
)
def test_a_byte_order_mark_comes_before_the_header(mark: bytes, codec: str) -> None:
    page = mark + f"<title>{TEXTS[codec]}</title>".encode(codec)

    assert (title(page, "koi8-r"), title(page)) == (TEXTS[codec], TEXTS[codec])


def test_the_header_comes_before_the_page() -> None:
    page = f"<meta charset=koi8-r><title>{TEXTS['cp1251']}</title>".encode("cp1251")

    assert title(page, "windows-1251") == TEXTS["cp1251"]


def test_nothing_is_read_in_an_encoding_that_hides_markup() -> None:
    assert open_graph.read(b"<title>Title</title>", "text/html; charset=iso-2022-kr", URL) == {}
