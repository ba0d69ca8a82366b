"""An ensemble, or one trial's model, for programs that run without this one."""
