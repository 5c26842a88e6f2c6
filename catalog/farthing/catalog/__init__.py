"""What is offered: listings, vocabulary, rate cards, terms and search.

Plans publications as values and answers searches; what is owed is not known here. Imports the protocol and identity.
"""
