"""The plan: every option, the mesh, where ranks live, and what goes with what."""
