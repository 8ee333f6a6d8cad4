"""The wire protocols of AI orchestrators, each call behind a circuit breaker.

`endpoints.open_orchestrators` opens them. Nothing is imported here: settings must be readable without loading an HTTP
client.
"""
