"""What the scripts beside this package measure with.

The scripts (``bench/*.py``, each with ``main`` and options, a table on stdout, and JSON under
``build/bench``) run on real servers as the tests start them, so the tests' own modules
(``stack``, ``servers``, ``images``) are used from here.
"""

import logging
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests"
SUPPORT = TESTS / "support"
sys.path += map(str, (TESTS, SUPPORT, SUPPORT / "fake", SUPPORT / "server", SUPPORT / "stage"))

logging.getLogger("abaco_jetstream").setLevel(logging.ERROR)  # it warns at each shutdown
