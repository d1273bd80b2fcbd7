"""`python -m labkit.lab COMMAND`: what `./lab COMMAND` hands over to."""

import sys

from labkit.lab.cli import main

sys.exit(main())
