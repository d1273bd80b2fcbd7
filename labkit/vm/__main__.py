"""`python -m labkit.vm`: see `labkit.vm.cli`."""

import sys

from labkit.vm import main

if __name__ == "__main__":
    sys.exit(main())
