"""What proposes trials, by name; each proposes after a resume what it would have proposed without one."""

from trainables.registry import Registry
from tuner.searchers.cmaes import CMAES
from tuner.searchers.gp import GP
from tuner.searchers.qmc import QMC
from tuner.searchers.random import RANDOM
from tuner.searchers.sampling import Method
from tuner.searchers.tpe import TPE

SEARCHERS: Registry[Method] = Registry({"tpe": TPE, "random": RANDOM, "gp": GP, "cmaes": CMAES, "qmc": QMC}, Method)
