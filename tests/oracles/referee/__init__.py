"""A step rank by rank: every rank's flat operations, every message a flow, cards first come first served."""
