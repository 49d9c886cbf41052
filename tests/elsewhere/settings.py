"""Settings of that site. Everything it keeps is in this process."""

from tests.settings import *  # noqa: F403 - all but what follows

INSTALLED_APPS = [*INSTALLED_APPS[:-1], "tests.elsewhere"]  # noqa: F405 - from there, with no workflows
AUTH_USER_MODEL = "elsewhere.Person"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ROOT_URLCONF = "tests.elsewhere.urls"
USE_TZ = False
TIME_ZONE = "Asia/Tokyo"
LANGUAGE_CODE = "de"
STEPFLOWS = {"CACHE": "locmem"}
