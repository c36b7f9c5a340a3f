"""Programs that measure. Each prints its figures with the machine they come from."""
