"""What ``manage.py check`` says about settings, caches, Celery and workflows that would bite.

Those marked * are looked at with ``--deploy`` alone. Workflows are read as they are written, never imported for it nor
run; what cannot be read or is not certain is passed over. ``SILENCED_SYSTEM_CHECKS`` silences by id.

======================  ======================================================================
``stepflows.E001``      a setting of ``STEPFLOWS`` is unknown or impossible
``stepflows.E002``      the alias of a cache that is used is not in ``CACHES``
``stepflows.W001``      a cache that lives in one process is shared by no worker
``stepflows.W002``      a cache throws entries away when it is full (``MAX_ENTRIES``)
``stepflows.W003``      a cache cannot promise that a step runs once, or that its entry stays
``stepflows.W004`` *    a Redis server evicts entries when it is full (``maxmemory-policy``)
``stepflows.W005``      a run may take longer than the broker waits (``visibility_timeout``)
``stepflows.W006`` *    ``task_always_eager`` makes ``delay`` run in the process that calls it
``stepflows.W007`` *    runs are in SQLite, whose transactions fail when two processes write
``stepflows.W008``      the settings name a broker, but no Celery app is loaded
``stepflows.W009``      a key is made from a clock, a random number, ``id()`` or ``hash()``
``stepflows.W010``      a step is given the result of a function in place of the function
``stepflows.W011``      one key is given to two steps with different labels
``stepflows.I001``      a check was not made, because a server or Celery could not be asked
``stepflows.I002``      a key holds the ``repr()`` of something that may be any object
``stepflows.I003``      in a loop, a key is the same for every item
======================  ======================================================================
"""

from stepflows.checks.caches import check_caches
from stepflows.checks.celery import check_celery, check_eager
from stepflows.checks.database import check_database
from stepflows.checks.eviction import check_eviction
from stepflows.checks.settings import check_settings
from stepflows.checks.workflows import check_workflows

__all__ = [
    "check_caches",
    "check_celery",
    "check_database",
    "check_eager",
    "check_eviction",
    "check_settings",
    "check_workflows",
]
