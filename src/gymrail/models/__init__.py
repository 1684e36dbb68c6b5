"""Models: things that answer a Responses request. Each lives in its own module, imported when it is used."""
