"""This process: its connections, their lives, and the background loops."""
