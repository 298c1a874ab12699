"""What is kept: spans and logs in DuckDB, and what is asked about them."""

from otlp_viewer.store.store import Added, Store

__all__ = ["Added", "Store"]
