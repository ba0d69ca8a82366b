"""Suspects: labels that the models of a run hold for wrong, for a person to accept or reject one by one."""
