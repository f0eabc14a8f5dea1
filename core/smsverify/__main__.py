"""`python -m smsverify`: the command line."""

import sys

from smsverify.cli import main

sys.exit(main())
