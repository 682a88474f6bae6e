"""What application services (bridges, bots) have made."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class AppserviceUser(Base):
    """A user whom a service has made: nobody's own account.

    Written by core/sessions/appservice_users.py.
    """

    __tablename__ = "appservice_users"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    service_id: Mapped[str]


class NetworkRoom(Base):
    """A room in the directory of a network beyond a bridge.

    Written by core/appservices/directory.py.
    """

    __tablename__ = "network_rooms"
    service_id: Mapped[str] = mapped_column(primary_key=True)
    network_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
