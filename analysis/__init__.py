"""From trials to an answer one can believe: which to take, how to let them vote, and how sure one may be.

ONNX Runtime reads this variable when it is first imported, so it is set here, before any module of ours imports it.
"""

import os

# From 1.29 on it reports the models that it loads to its maker, under a number that it keeps in ~/.cache.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
