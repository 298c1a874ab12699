"""Queries in Honeycomb's terms: read, compiled to SQL, answered."""
