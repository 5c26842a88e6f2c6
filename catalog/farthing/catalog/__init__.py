"""What is offered: listings, vocabulary, rate cards, terms and search.

Plans publications as values and answers searches; knows nothing of what is owed. Imports the
protocol and identity.
"""
