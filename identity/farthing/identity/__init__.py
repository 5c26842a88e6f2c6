"""Who may do what: callers, agents, keys, roles, grants and approvals.

Plans changes as values and reads what is known; commits nothing itself. Imports the protocol only.
"""
