"""A Transformer on one rank in NumPy that counts, operator by operator, the bytes it reads and writes and the FLOPs it does.

Written from the operators' definitions, forward and backward, without a look at how athanor lowers them: what athanor lowers is held
to it. Its gradients are held to differences of its loss, so that nothing can be forgotten that a gradient needs.
"""
