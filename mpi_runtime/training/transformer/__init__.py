"""Dense Transformers computed for real: whole by one process, or cut over ranks by the strategies of a plan."""
