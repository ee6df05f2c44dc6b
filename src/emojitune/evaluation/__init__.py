"""Evaluation: metrics, how replies are measured, intervals and tests, baselines, reports."""
