"""Reports, server notices, accepted terms, OpenID tokens, the index of the user directory.

The index of the user directory is filled here for existing accounts.
"""

import json
import re
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("created_ts", INTEGER, nullable=False),
        sa.Column("reporter", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
    )
    op.create_table(
        "server_notice_rooms",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_server_notice_rooms")),
    )
    op.create_table(
        "accepted_terms",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("accepted_ts", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "document_id", "version", name=op.f("pk_accepted_terms")
        ),
    )
    op.create_table(
        "openid_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("expires_ts", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_openid_tokens")),
    )
    op.create_index(op.f("ix_openid_tokens_expires_ts"), "openid_tokens", ["expires_ts"])
    words = op.create_table(
        "directory_words",
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("word", "user_id", name=op.f("pk_directory_words")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_directory_words_user_id_word"), "directory_words", ["user_id", "word"])
    names = """SELECT a.user_id, p.value FROM accounts a
        LEFT JOIN profile_fields p ON p.user_id = a.user_id AND p.name = 'displayname'
        WHERE a.deactivated_ts IS NULL"""
    for user_id, name in op.get_bind().execute(sa.text(names)).all():
        if rows := _rows(user_id, json.loads(name or '""')):
            op.bulk_insert(words, rows)


def downgrade() -> None:
    for table in (
        "directory_words",
        "openid_tokens",
        "accepted_terms",
        "server_notice_rooms",
        "reports",
    ):
        op.drop_table(table)


def _rows(user_id: str, name: str) -> list[dict[str, object]]:
    """Return the rows that user_directory.put() wrote when this migration was released."""
    text = unicodedata.normalize("NFKD", f"{user_id[1:].partition(':')[0]} {name}")
    text = "".join(letter for letter in text if not unicodedata.combining(letter)).casefold()
    found: dict[str, bool] = {}
    for word in re.findall(r"[^\W_]+", text)[:16]:
        for at in range(min(len(word), 32)):
            found[word[at:32]] = found.get(word[at:32], False) or at == 0
    return [{"word": word, "user_id": user_id, "is_whole": is_so} for word, is_so in found.items()]
