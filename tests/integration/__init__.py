"""Tests of whole parts: a server in the process, a command as a process."""
