"""The search index of the user directory.

The index has the words of each account's names, and every suffix of each word: "ice" finds alice
as the prefix of an entry, without a scan of all accounts.

This module alone writes the table directory_words.
Spec: client-server-api#user-directory
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Final

from sqlalchemy import delete, insert

from homebody.models.accounts import DirectoryWord
from homebody.storage.database import Tx

MAX_LETTERS: Final = 32
"""Characters of an index entry, and of a word in a search."""
MAX_ENTRIES: Final = 600
"""Per user: more than the letters of a user name and a display name. Some characters expand to
many letters."""
_WORD = re.compile(r"[^\W_]+")


def put(tx: Tx, user_id: str, displayname: str | None) -> None:
    """Index the user under this display name and their localpart, replacing earlier entries."""
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
    if rows:  # a localpart may consist of punctuation alone
        tx.sql.execute(insert(DirectoryWord), rows)


def remove(tx: Tx, user_id: str) -> None:
    """Remove the user from the index."""
    tx.sql.execute(delete(DirectoryWord).where(DirectoryWord.user_id == user_id))


def words(text: str) -> list[str]:
    """Return the words of a text, case-folded and without accents, longest first."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
    return sorted(set(_WORD.findall(plain)), key=lambda word: (-len(word), word))
