"""Users and rooms created by application services (bridges, bots)."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class AppserviceUser(Base):
    """A user created by an application service.

    Written by core/sessions/appservice_users.py.
    """

    __tablename__ = "appservice_users"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    service_id: Mapped[str]


class NetworkRoom(Base):
    """A room in the directory of a bridged network.

    Written by core/appservices/networks.py.
    """

    __tablename__ = "network_rooms"
    service_id: Mapped[str] = mapped_column(primary_key=True)
    network_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
