"""`python -m mray.cli`: the command line of this very interpreter."""

import sys

from mray.cli.main import main

sys.exit(main())
