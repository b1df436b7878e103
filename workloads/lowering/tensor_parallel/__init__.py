"""Products with weights that are cut over ``tp``: not at all, in one dimension, in two."""
