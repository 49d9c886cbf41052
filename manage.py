#!/usr/bin/env python
"""Django's command line for the example site. Start with ``python manage.py serve`` or ``python manage.py demo``."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)  # As shells have it: 128 and the number of the signal.
