"""Tests of scripts and repositories against real servers."""
