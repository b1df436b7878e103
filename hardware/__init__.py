"""What is the machine? Core groups, nodes, fabrics, and the catalogue of machines with the source of every number."""
