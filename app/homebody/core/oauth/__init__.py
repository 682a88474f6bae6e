"""The OAuth 2.0 API: clients, authorization codes, device codes, and the sessions they start.

Spec: client-server-api#oauth-20-api
"""
