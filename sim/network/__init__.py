"""The network: links, routes, fair rates, and what is under way at once."""
