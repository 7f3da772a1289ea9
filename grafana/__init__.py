"""Dashboards and alerts. `python -m grafana.make` writes the dashboards; everything else is written by hand."""
