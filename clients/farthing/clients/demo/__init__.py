"""The demo: three vendors who do real work, a buyer, and the trade between them.

The work itself is in `work_*`, plain functions that know nothing of money.
"""
