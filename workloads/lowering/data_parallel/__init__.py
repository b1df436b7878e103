"""Replicas: gradients over the network, sharded state, weights that are gathered, host memory."""
