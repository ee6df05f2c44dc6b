"""Attacks by one project's key, and what another project notices of them."""
