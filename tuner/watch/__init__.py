"""A page that shows a run while it is searched, and takes requests to it; served to this machine alone."""
