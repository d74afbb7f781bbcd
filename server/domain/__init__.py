"""Pure domain: words, states, messages and rules; no asyncio, no input or output."""
