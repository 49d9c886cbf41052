"""``python -m tests.kills``: see ``program.py``."""

import os
import sys

import django
from django.utils.module_loading import import_string

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    # It knows the models, which cannot be imported before.
    sys.exit(import_string("tests.kills.program.main")())
