"""`python -m traced_flask`, which is the `traced-flask` command."""

import sys

from traced_flask.cli import main

sys.exit(main())
