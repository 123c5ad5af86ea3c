"""Around the pack: the embedded host, its start and stop, the runner of workflows. Nothing in the pack imports this."""

import sys

# First of all: the modules imported after this one do not even load on an older Python.
if sys.version_info < (3, 10):  # noqa: UP036 (bootstrap.py meets Pythons that no installer has vetted)
    sys.exit("error: Python 3.10 or newer is needed, this is {}.{} ({}).".format(*sys.version_info[:2], sys.executable))
