"""Pages for people: the demo."""
