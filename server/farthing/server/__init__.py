"""The doors and the operations behind them: where the other rooms are brought together.

Admission, dispatch, one file of operations per noun, and the one composition root. No money is
decided here.
"""
