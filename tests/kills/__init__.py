"""Workers that are killed while they run, again and again, and what becomes of the runs."""
