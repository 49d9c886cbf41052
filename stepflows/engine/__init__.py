"""The engine: what a run does and in which order. It knows no Django, no Celery and no cache server."""
