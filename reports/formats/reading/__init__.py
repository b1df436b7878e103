"""Files of others as data: bounded, without code, entities or tags; what is wrong with them is said in one line."""
