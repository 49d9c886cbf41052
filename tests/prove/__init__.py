"""What a sceptic would run, in one command, with one table of what was tried, how often, and what was lost."""
