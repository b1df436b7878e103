"""Studies: what runs things in order to judge them."""
