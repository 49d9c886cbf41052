"""Settings of the example site.

What differs from place to place comes from the environment: ``REDIS_URL``, ``PAYMENT_URL`` and ``SHOP_FOLDER``.
``manage.py serve`` and ``manage.py demo`` set them for the processes they start.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent

#: Where the database and the e-mails lie.
SHOP_FOLDER = Path(os.environ.get("SHOP_FOLDER", BASE_DIR / ".run"))
#: The cache server; the broker is the next database of the same server.
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
PAYMENT_URL = os.environ.get("PAYMENT_URL", "http://127.0.0.1:8001")

SECRET_KEY = "only-for-the-example-site-and-no-secret-at-all"  # noqa: S105 - as it says
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "stepflows",
    "project.shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": SHOP_FOLDER / "shop.sqlite3",
        "OPTIONS": {
            # Site and workers write at once: readers do not block, and writers queue for up to this many seconds.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "shop",
    },
}

STEPFLOWS = {
    "CACHE": "default",
}

CELERY_BROKER_URL = urlsplit(REDIS_URL)._replace(path=f"/{int(urlsplit(REDIS_URL).path.strip('/') or 0) + 1}").geturl()
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": "shop:"}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = SHOP_FOLDER / "mails"
DEFAULT_FROM_EMAIL = "The Lamplight Shop <orders@shop.example>"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
