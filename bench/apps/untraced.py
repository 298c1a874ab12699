"""Baseline (a): the same application, and no SDK is loaded. Also (c), under `opentelemetry-instrument`."""

import routes
import stand_in

app = stand_in.create_app(lambda app: None)
routes.add(app)
