"""The backend: a Flask application that is traced from its first request."""
