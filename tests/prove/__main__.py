"""``python -m tests.prove``: see ``program.py``."""

import os
import sys

import django
from django.utils.module_loading import import_string

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    # Servers are stopped, filled and emptied here: they are this program's own.
    os.environ.pop("REDIS_URL", None)
    django.setup()
    # It knows the models, which cannot be imported before.
    sys.exit(import_string("tests.prove.program.main")())
