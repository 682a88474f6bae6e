"""Application services: bridges and bots that the administrator has registered."""
