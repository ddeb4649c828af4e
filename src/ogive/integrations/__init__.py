"""Bridges to libraries that people already use. Each loads its library on first use."""
