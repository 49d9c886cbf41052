"""A site that does nearly everything otherwise: its own users, local time without zones, German, its own admin."""
