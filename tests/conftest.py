"""What every test shares: one thread (two test processes share two cores) and no network."""

import os
import signal

from hypothesis import settings

# A run started in the background inherits an ignored Ctrl-C, and its children would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Shapes are checked by the hook of the test run; dynamo cannot trace checked functions.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# Machines are shared and noisy: a slow example is no failure, and every run tries the same ones.
settings.register_profile("spirit", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("spirit")
