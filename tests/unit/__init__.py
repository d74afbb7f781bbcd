"""Pure tests: no I/O, milliseconds."""
