"""The mesh of ranks, and where they live: arrays that broadcast over named axes, nodes for every rank."""
