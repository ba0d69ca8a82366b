"""The demo data set: people who are drawn, for a first run without images of one's own. Nothing but the demo and tests use it."""
