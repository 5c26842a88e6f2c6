"""Authority: what an agent may spend, as a pure decision over a grant and its counters."""
