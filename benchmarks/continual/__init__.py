"""Continued pretraining: critical shares of new data, on published and on made runs."""
