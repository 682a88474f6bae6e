"""Application services: bridges and bots that the owner has registered."""
