"""The mixture explorer: what a study forecasts of any mixture, worked out in the page."""

from mixlaw.report.explorer.payload import NUM_DRAWS, Explorer, escaped_json, explorer

__all__ = ["NUM_DRAWS", "Explorer", "escaped_json", "explorer"]
