"""`python -m trit`: the same as the `trit` command."""

import sys

from trit.cli import main

if __name__ == "__main__":
    sys.exit(main())
