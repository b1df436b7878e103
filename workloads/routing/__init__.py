"""Routing: how popular experts are, who takes which token, and what balances the load."""
