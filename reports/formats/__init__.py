"""What others write and read: their models, launches, measurements, topologies and traces."""
