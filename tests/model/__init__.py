"""A pure model of presence and admission, and what is needed to compare Redis with it."""
