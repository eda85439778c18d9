"""Constants for several test files: durations in seconds, and a time in seconds since the epoch."""

HOUR = 3600
DAY = 24 * HOUR

BEGINNING = 1_795_341_600.0  # 2026-11-22T10:00:00Z
