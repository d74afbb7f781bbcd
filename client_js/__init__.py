"""The browser client, as files that the server hands out."""
