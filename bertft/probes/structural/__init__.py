"""Structural probes of syntax trees."""
