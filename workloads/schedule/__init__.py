"""The Schedule: operations as plain data, and what each costs on a processor."""
