"""`python -m benches.cli`."""

import sys

from benches.cli import main

sys.exit(main())
