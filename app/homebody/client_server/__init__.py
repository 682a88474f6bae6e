"""Blueprints of the Client-Server API, one for each chapter of the specification."""

PREFIX = "/_matrix/client/v3"
