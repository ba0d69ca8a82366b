"""The topics of the report: from what was read to words, tables and pictures."""
