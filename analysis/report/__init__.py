"""The report of a search, from its records alone: figures are plain records first, pictures and a page second."""
