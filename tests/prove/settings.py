"""Settings of the processes of the soak: those of the tests, and the workflows that it runs."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as _TESTED

INSTALLED_APPS = [*_TESTED, "tests.prove"]
