"""What this template renders."""

import routes
from backend.app import create_app

app = create_app()
routes.add(app)
