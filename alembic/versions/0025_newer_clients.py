"""OAuth, single sign-on, delayed events, thread subscriptions: what newer clients need."""

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
