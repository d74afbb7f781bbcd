"""`presence top`: who is in, who waits and what happens, live in the terminal."""
