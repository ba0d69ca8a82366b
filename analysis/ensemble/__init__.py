"""The ensemble of a run: chosen and fitted on validation, scored once on the hold-out."""
