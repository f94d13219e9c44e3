"""Settings shared by all tests."""

from hypothesis import settings

# Machines are shared and slow at times: no deadlines. The same examples on every run, so that a
# red build can be repeated; `--hypothesis-seed` or the "explore" profile looks further.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("repeatable")
