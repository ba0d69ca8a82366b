"""Label issues: labels that are probably wrong by the models of a run, for a person to accept or reject one by one."""
