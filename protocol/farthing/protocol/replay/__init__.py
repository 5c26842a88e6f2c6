"""Replaying the records of one charge: every price, posting and ruling computed again."""
