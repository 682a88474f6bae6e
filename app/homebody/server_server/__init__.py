"""Blueprints of the Server-Server API, one for each chapter of the specification."""

PREFIX = "/_matrix/federation"
