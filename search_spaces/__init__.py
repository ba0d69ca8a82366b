"""What may vary: YAML spaces, read and checked into a `Space` that proposes configurations."""

from search_spaces.shadowing import refuse_shadows

refuse_shadows()
