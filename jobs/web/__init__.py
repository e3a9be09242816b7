"""The dashboard: pages drawn on the server over the same queries, keys and tenants as the API."""

from jobs.web.app import install

__all__ = ["install"]
