"""Looks at all that a server stands on, and says of each what is wrong and how to mend it. Changes nothing."""
