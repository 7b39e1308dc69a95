"""`python -m dsage_spool` is the command `dsage-spool`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
