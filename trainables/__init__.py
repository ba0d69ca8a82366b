"""How one trial is trained: images, models, losses, optimizers, the loop, and the record it leaves.

torch reads this variable when it is first imported, so it is set here, before any module of ours imports it.
"""

import os

# What Apple's GPU has no kernel for runs on the CPU instead of failing.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
