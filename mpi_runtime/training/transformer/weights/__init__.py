"""The weights of a dense model: how they are cut, what a rank holds of them, and what an optimizer sees."""
