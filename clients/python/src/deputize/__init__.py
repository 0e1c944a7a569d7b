"""Tokens for exactly one tool call."""
