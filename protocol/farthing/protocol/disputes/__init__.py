"""Tier-1 disputes: deterministic rules over a frozen case; no rule reads prose."""
