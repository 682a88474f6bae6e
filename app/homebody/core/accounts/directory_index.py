"""The words by which the user directory finds each account.

Each account has its words in an index, and the ends of each word: "ice" finds alice as the start of
an entry, without a look at every account.

This module alone writes the table directory_words.
Spec: client-server-api#user-directory
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Final

from sqlalchemy import bindparam, delete, insert

from homebody.models.people import DirectoryWord
from homebody.storage.database import Tx

MAX_LETTERS: Final = 32
"""Of an entry of the index, and of a word in a search."""
MAX_ENTRIES: Final = 600
"""Of one user: more than the letters of a user name and a display name. Some signs stand for many
letters."""
_WORD = re.compile(r"[^\W_]+")
_INSERT = insert(DirectoryWord)
_DELETE = delete(DirectoryWord).where(DirectoryWord.user_id == bindparam("of_user"))


def put(tx: Tx, user_id: str, displayname: str | None) -> None:
    """Let the user be found by this name and by their user name, and by nothing else any more."""
    remove(tx, user_id)
    localpart = user_id[1:].partition(":")[0]
    found: dict[str, bool] = {}
    starts = (
        (word, at) for word in words(f"{localpart} {displayname or ''}") for at in range(len(word))
    )
    for word, at in itertools.islice(starts, MAX_ENTRIES):
        entry = word[at : at + MAX_LETTERS]
        found[entry] = found.get(entry, False) or at == 0
    rows = [{"word": word, "user_id": user_id, "is_whole": is_so} for word, is_so in found.items()]
    if rows:  # a user name may consist of signs alone
        tx.sql.execute(_INSERT, rows)


def remove(tx: Tx, user_id: str) -> None:
    """Let the user not be found any more."""
    tx.sql.execute(_DELETE, {"of_user": user_id})


def words(text: str) -> list[str]:
    """The words of a text as they are compared: without capitals and accents, longest first."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
    return sorted(set(_WORD.findall(plain)), key=lambda word: (-len(word), word))
