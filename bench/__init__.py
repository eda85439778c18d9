"""The programs behind every claim about speed and cost. `make bench` runs them all."""
