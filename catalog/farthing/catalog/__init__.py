"""What is offered: listings and their lint, vocabulary, rate cards and search.

Judges publications and answers searches; knows nothing of what is owed. Imports the
protocol and identity.
"""
