"""Live state in Redis: keys, Lua scripts, the store that runs them, the event follower."""
