"""`python -m labkit.course.commands COMMAND`: what `./lab COMMAND` hands over to."""

import sys

from labkit.course.commands.cli import main

sys.exit(main())
