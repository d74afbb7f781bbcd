"""Tests from outside: processes and a browser."""
