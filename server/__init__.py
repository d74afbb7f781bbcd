"""interview-presence: the Starlette server for live presence and admission."""
