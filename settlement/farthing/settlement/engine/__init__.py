"""The engine: one deterministic state machine that decides everything about money. Pure."""
